"""Every kind of finding in every object that can carry it, before every tool that knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.ann import annread
from highdicom.ko import KeyObjectSelectionDocument
from highdicom.seg import segread
from highdicom.sr import MeasurementReport, srread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    GrayscaleSoftcopyPresentationStateStorage,
)

from engines.findings import Analysis, ImageAnalysis, Outcome, Refusal, SlideAnalysis
from node.inference import ordered_writers
from node.interfaces import ResultContext
from node.result_profiles import FindingKind, kind_of
from tests.node.results.building import context, refusal, series
from tests.node.results.itk import FloatArray, convert, mask_centres, same_points
from tests.node.results.pictured import SOURCES, again, with_images
from tests.node.results.test_label_map import labelled
from tests.node.results.validators import (
    DCIODVFY_ACCEPTED,
    dcentvfy,
    dciodvfy,
    dcmpschk,
    sr_validator,
)

EVERYWHERE: Final = frozenset(
    {"encapsulated_pdf", "multiframe_capture", "secondary_capture", "text_report"}
)
SEGMENTS: Final = EVERYWHERE | {
    "box_report",
    "key_object",
    "label_map",
    "measurement_report",
    "presentation_state",
    "rt_structure_set",
    "segmentation",
}
CARRIED: Final[Mapping[FindingKind, frozenset[str]]] = {
    FindingKind.SEGMENTATION: SEGMENTS,
    FindingKind.CLASSIFICATION: EVERYWHERE
    | {"classification_report", "presentation_state", "key_object"},
    FindingKind.ANNOTATIONS: EVERYWHERE | {"bulk_annotations", "key_object"},
    FindingKind.NOTHING_FOUND: EVERYWHERE | {"measurement_report", "classification_report"},
    FindingKind.NOT_ANALYSED: EVERYWHERE,
}
"""Which objects carry which kind of finding; an object that is missing here, or too many, fails."""
REPORTS: Final = (
    "text_report",
    "measurement_report",
    "classification_report",
    "box_report",
    "key_object",
)
NO_READER: Final = frozenset({"presentation_state", "rt_structure_set", "encapsulated_pdf"})
"""highdicom has no class that reads these; dcmpschk does, and the checks before sending."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one job made: its context, the files of its source, and those of each object."""

    context: ResultContext
    sources: tuple[Path, ...]
    objects: Mapping[str, tuple[Path, ...]]

    @property
    def kind(self) -> FindingKind:
        """Which kind it is; what carries segments does so whatever the shape of pixels."""
        found = kind_of(self.context.outcome)
        oblong = found is FindingKind.SEGMENTATION_OBLONG
        return FindingKind.SEGMENTATION if oblong else found


def on_one_array(folder: Path) -> ResultContext:
    """Find two segments that share one array, as segments of a label map must."""
    headers = series(folder / "source", spacing=(5.0, 4.0, 2.0))
    return with_images(context(headers, labelled(headers)), folder / "source")


BUILDERS: Final[Mapping[str, Callable[[Path], ResultContext]]] = {
    **SOURCES,
    "CT in one array": on_one_array,
}


def outcomes(made: ResultContext) -> Iterator[tuple[str, Outcome]]:
    found = made.outcome
    yield "found", found
    yield "nothing", replace(found, findings=())  # type: ignore[arg-type]  # no refusal is among them
    yield "refused", refusal()


def make(made: ResultContext, folder: Path) -> dict[str, tuple[Path, ...]]:
    """Run every writer that there is, as a job does; save and check its objects."""
    folder.mkdir(parents=True)
    paths: dict[str, tuple[Path, ...]] = {}
    written: dict[str, tuple[Dataset, ...]] = {}
    for writer in ordered_writers():
        if not writer.handles(made.outcome):
            continue
        current = replace(made, written=dict(written))
        written[writer.name] = writer.write(current)
        paths[writer.name] = tuple(
            folder / f"{writer.name}-{index}.dcm" for index in range(len(written[writer.name]))
        )
        for path, dataset in zip(paths[writer.name], written[writer.name], strict=True):
            dataset.save_as(path, enforce_file_format=True)
            writer.check(path, current)
    return paths


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Make every object of every kind of finding, on every kind of source, once."""
    folder = tmp_path_factory.mktemp("jobs")
    return {
        f"{source}, {name}": Made(
            context=again(built, outcome),
            sources=tuple(sorted((folder / source / "source").rglob("*.dcm"))),
            objects=make(again(built, outcome), folder / source / name),
        )
        for source, build in BUILDERS.items()
        for built in (build(folder / source),)
        for name, outcome in outcomes(built)
    }


OUTCOMES: Final = ("found", "nothing", "refused")
CASES: Final = [f"{source}, {name}" for source in BUILDERS for name in OUTCOMES]


def test_every_kind_of_finding_is_in_every_object_that_can_carry_it(jobs: dict[str, Made]) -> None:
    """R37: what is tested below is all there is."""
    made = {
        kind: frozenset(name for job in jobs.values() if job.kind is kind for name in job.objects)
        for kind in FindingKind
        if kind is not FindingKind.SEGMENTATION_OBLONG
    }
    assert made == CARRIED
    assert frozenset().union(*made.values()) == {writer.name for writer in ordered_writers()}


def accepted_of(case: str, name: str) -> list[str]:
    """Return what dciodvfy may say of one object, and of what is found on one source."""
    reasons = {
        "VAL-03": name == "label_map",
        "VAL-01": case.startswith("slide"),
        "coordinates in a plane": name == "bulk_annotations",
    }
    return [DCIODVFY_ACCEPTED[reason] for reason, holds in reasons.items() if holds]


@pytest.mark.parametrize("case", CASES)
def test_every_object_conforms_to_its_iod_and_agrees_with_its_sources(
    case: str, jobs: dict[str, Made]
) -> None:
    """OBJ-01, VAL-01, VAL-03, AIR-04: dicom3tools."""
    job = jobs[case]
    for name, paths in job.objects.items():
        accepted = accepted_of(case, name)
        said = [line for path in paths for line in dciodvfy(path)]
        assert not [line for line in said if not any(words in line for words in accepted)], name
    assert not dcentvfy([*job.sources, *(path for made in job.objects.values() for path in made)])


def test_reports_of_every_kind_follow_their_templates(jobs: dict[str, Made]) -> None:
    """AIR-03, SR-03, SR-06, VAL-06 to VAL-09: PixelMed, one document of each kind, at one go.

    VAL-06, VAL-07, VAL-08, VAL-09: of its messages only warnings are accepted, by name.
    """
    documents: dict[tuple[FindingKind, str], Path] = {}
    for job in jobs.values():
        reports = {name: paths[0] for name, paths in job.objects.items() if name in REPORTS}
        documents |= {(job.kind, name): path for name, path in reports.items()}
    assert documents.keys() == {
        (kind, name) for kind, carried in CARRIED.items() for name in carried & set(REPORTS)
    }
    assert not sr_validator(list(documents.values()))


def test_dcmtk_finds_presentation_states_of_every_kind_valid(jobs: dict[str, Made]) -> None:
    """It knows those of grey images alone; of colour ones dciodvfy is asked, above."""
    states = [path for job in jobs.values() for path in job.objects.get("presentation_state", ())]
    classes = [pydicom.dcmread(path).SOPClassUID for path in states]
    grey = [
        path
        for path, of_class in zip(states, classes, strict=True)
        if of_class == GrayscaleSoftcopyPresentationStateStorage
    ]
    assert set(classes) - {GrayscaleSoftcopyPresentationStateStorage} <= {
        ColorSoftcopyPresentationStateStorage
    }
    assert len(grey) >= len([kind for kind in CARRIED if "presentation_state" in CARRIED[kind]])
    assert not [fault for path in grey for fault in dcmpschk(path)]


@pytest.mark.parametrize("writer", ["segmentation", "label_map"])
def test_dcmqi_and_highdicom_read_each_segmentation_to_the_same_voxels(
    writer: str, jobs: dict[str, Made], tmp_path: Path
) -> None:
    """OBJ-22, SEG-02, SEG-10, AIR-04."""
    read = [job for job in jobs.values() if writer in job.objects]
    assert read
    for number, job in enumerate(read):
        (path,) = job.objects[writer]
        theirs = convert(path, tmp_path / str(number))
        wanted = wanted_voxels(job, path)
        assert theirs.keys() == wanted.keys()
        for found, (tracking, placed) in zip(in_highdicom(path), wanted.items(), strict=True):
            assert same_points(theirs[tracking], placed)
            assert same_points(found, placed)


def wanted_voxels(job: Made, path: Path) -> dict[str, FloatArray]:
    """Return where the voxels of each segment are (LPS, mm), by tracking UID, in their order."""
    outcome = job.context.outcome
    assert isinstance(outcome, Analysis)
    described = pydicom.dcmread(path, stop_before_pixels=True).SegmentSequence
    return {
        str(item.TrackingUID): mask_centres(segment.mask, outcome.grid)
        for item, segment in zip(described, outcome.findings, strict=True)
    }


def in_highdicom(path: Path) -> Iterator[FloatArray]:
    volume = segread(path).get_volume(combine_segments=False)
    for channel in np.moveaxis(np.asarray(volume.array), -1, 0):
        yield volume.map_indices_to_reference(np.argwhere(channel))


def report_in(path: Path) -> MeasurementReport:
    content = srread(path).content
    assert isinstance(content, MeasurementReport)
    return content


def numbers_in(path: Path) -> list[float | None]:
    report = report_in(path)
    groups = [
        *report.get_volumetric_roi_measurement_groups(),
        *report.get_image_measurement_groups(),
    ]
    return [number.value for group in groups for number in group.get_measurements()]


def concepts_in(path: Path) -> set[tuple[str, str]]:
    """Return which concepts a report says are Present or Absent."""
    groups = report_in(path).get_image_measurement_groups()
    said = [item for group in groups for item in group.get_qualitative_evaluations()]
    pairs = {(str(item.name.meaning), str(item.value.meaning)) for item in said}  # type: ignore[union-attr]  # codes, all of them
    return {(name, value) for name, value in pairs if value in {"Present", "Absent"}}


def read_numbers(path: Path, outcome: Outcome) -> None:
    """Every number that was measured, in the order of the findings; Absent for all else."""
    assert isinstance(outcome, Analysis | ImageAnalysis)
    assert numbers_in(path) == [
        item.value for finding in outcome.findings for item in finding.measurements
    ]
    said = concepts_in(path)
    if isinstance(outcome, ImageAnalysis):
        assert {name for name, value in said if value == "Present"} == {
            finding.type.meaning for finding in outcome.findings
        }
    if not outcome.findings:
        assert said == {(concept.meaning, "Absent") for concept in outcome.sought}


def read_boxes(path: Path, outcome: Outcome) -> None:
    """Find a closed rectangle for each segment, by its tracking UID, and numbers in it."""
    assert isinstance(outcome, Analysis)
    groups = report_in(path).get_planar_roi_measurement_groups()
    assert len(groups) == len(outcome.findings)
    for group in groups:
        assert group.roi is not None
        corners = np.asarray(group.roi.value)
        assert corners.shape == (5, 2)
        assert (corners[0] == corners[-1]).all()
        assert group.get_measurements()


def read_words(path: Path, outcome: Outcome) -> None:
    """Every finding by its label, or the reason."""
    document = srread(path)
    words = " ".join(str(item.value) for item in document.iterall() if item.VR == "UT")
    if isinstance(outcome, Refusal):
        assert outcome.reason.meaning in words
    else:
        assert all(finding.label in words for finding in outcome.findings)
        assert outcome.findings or "othing found" in words


def read_key_images(path: Path, outcome: Outcome) -> None:
    references = KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(path)).content
    named = {str(item.referenced_sop_instance_uid) for item in references.get_references()}
    assert not isinstance(outcome, Refusal)
    assert named
    assert named <= {source.sop_instance_uid for source in outcome.sources}


def read_outlines(path: Path, outcome: Outcome) -> None:
    assert isinstance(outcome, SlideAnalysis)
    annotations = annread(path)
    for group, wanted in zip(annotations.get_annotation_groups(), outcome.findings, strict=True):
        drawn = group.get_graphic_data(annotations.annotation_coordinate_type)
        assert group.label == wanted.label
        assert all(map(np.array_equal, drawn, wanted.polygons))


def read_labels(path: Path, outcome: Outcome) -> None:
    """Segments by their names; where their voxels are is tested by itself."""
    found = segread(path)
    assert isinstance(outcome, Analysis)
    assert [
        str(found.get_segment_description(number).SegmentLabel) for number in found.segment_numbers
    ] == [segment.label for segment in outcome.findings]


def read_pictures(path: Path, outcome: Outcome) -> None:  # noqa: ARG001  # what a picture shows is tested with its writer
    """Pictures in colours, each of them decoded."""
    picture = highdicom.imread(path)
    for number in range(1, picture.number_of_frames + 1):
        assert picture.get_frame(number).shape == (picture.Rows, picture.Columns, 3)


READERS: Final[Mapping[str, Callable[[Path, Outcome], None]]] = {
    "segmentation": read_labels,
    "label_map": read_labels,
    "measurement_report": read_numbers,
    "classification_report": read_numbers,
    "box_report": read_boxes,
    "text_report": read_words,
    "key_object": read_key_images,
    "bulk_annotations": read_outlines,
    "secondary_capture": read_pictures,
    "multiframe_capture": read_pictures,
}


@pytest.mark.parametrize("case", CASES)
def test_highdicom_reads_the_same_findings_from_every_object(
    case: str, jobs: dict[str, Made]
) -> None:
    """OBJ-22: what comes out is what went in, by another way than the check before sending."""
    job = jobs[case]
    assert job.objects.keys() <= READERS.keys() | NO_READER
    for name in job.objects.keys() - NO_READER:
        for path in job.objects[name]:
            READERS[name](path, job.context.outcome)
