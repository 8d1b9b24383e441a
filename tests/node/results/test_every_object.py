"""What every result object has in common, whichever writer made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from node.inference import ordered_writers
from node.interfaces import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    ResultContext,
)
from node.result_profiles import PLANNED
from node.results import _identity as identity
from tests.node.results.building import CREATED
from tests.node.results.pictured import on_radiograph, on_slide
from tests.node.results.test_kinds_and_objects import make, on_one_array

MODALITIES: Final[Mapping[str, str]] = {
    "segmentation": "SEG",
    "label_map": "SEG",
    "measurement_report": "SR",
    "classification_report": "SR",
    "box_report": "SR",
    "text_report": "SR",
    "presentation_state": "PR",
    "key_object": "KO",
    "secondary_capture": "OT",
    "multiframe_capture": "OT",
    "encapsulated_pdf": "DOC",
    "rt_structure_set": "RTSTRUCT",
    "bulk_annotations": "ANN",
}
WITH_BODY_PART: Final = (
    "segmentation",
    "label_map",
    "presentation_state",
    "secondary_capture",
    "multiframe_capture",
)
WITH_ALL_IMAGES: Final = frozenset(
    {"segmentation", "label_map", "secondary_capture", "multiframe_capture"}
)
"""What lists every source; of single pictures the card, which comes first."""
PROCESSING: Final = "109102"
CONTENT_DATES: Final = {
    "presentation_state": ("PresentationCreationDate", "PresentationCreationTime"),
    "rt_structure_set": ("StructureSetDate", "StructureSetTime"),
}
"""Where the time of the job stands; in Content Date and Time for all others."""
OTHER_SYNTAXES: Final = {"label_map": RLELossless, "rt_structure_set": ImplicitVRLittleEndian}
"""All others are in Explicit VR Little Endian."""
FIRST_OF_OURS: Final = 9000


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one job made: its context, and what is in the files of each writer."""

    context: ResultContext
    objects: Mapping[str, tuple[Dataset, ...]]

    def each(self) -> Iterator[tuple[str, Dataset]]:
        """Yield every object with the name of its writer."""
        for name, datasets in self.objects.items():
            yield from ((name, dataset) for dataset in datasets)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, ...]:
    """Make every object that there is: on a CT, on radiographs, on a slide."""
    made = []
    for build in (on_one_array, on_radiograph, on_slide):
        folder: Path = tmp_path_factory.mktemp("job")
        later = CREATED + timedelta(days=1, hours=5)
        built = replace(build(folder), created=later)
        files = make(built, folder / "out")
        objects = {name: tuple(map(pydicom.dcmread, paths)) for name, paths in files.items()}
        made.append(Job(context=built, objects=objects))
    return tuple(made)


def items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a data set and every item in it."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from items(item)


def referred_to(dataset: Dataset) -> set[str]:
    """Return the SOP Instance UIDs that are referred to anywhere in an object."""
    found = (item.get("ReferencedSOPInstanceUID") for item in items(dataset))
    return {str(uid) for uid in found if uid}


def test_every_object_there_is_is_looked_at(jobs: tuple[Job, ...]) -> None:
    made = {name for job in jobs for name in job.objects}
    assert made == MODALITIES.keys() == {writer.name for writer in ordered_writers()}


def test_every_object_is_of_a_class_that_its_writer_tells(jobs: tuple[Job, ...]) -> None:
    """AIR-08, SR-01: the conformance statement has these, and probes ask for them."""
    writers = {writer.name: writer for writer in ordered_writers()}
    for job in jobs:
        for name, dataset in job.each():
            assert dataset.SOPClassUID in (writers[name].sop_class_uids or PLANNED[name])
            syntax = OTHER_SYNTAXES.get(name, ExplicitVRLittleEndian)
            assert dataset.file_meta.TransferSyntaxUID == syntax


def test_objects_have_what_archives_filter_results_by(jobs: tuple[Job, ...]) -> None:
    """AIR-11: template and completion of reports, kind and label of segmentations."""
    for job in jobs:
        for name, dataset in job.each():
            if MODALITIES[name] == "SR":
                assert dataset.ContentTemplateSequence[0].TemplateIdentifier in ("1500", "2000")
                assert dataset.CompletionFlag == "COMPLETE"
            if MODALITIES[name] == "SEG":
                assert dataset.SegmentationType in ("BINARY", "LABELMAP")
                assert dataset.ContentLabel == "AI_SEGMENTATION"


def test_every_segment_has_a_colour_an_algorithm_and_a_tracking_uid(jobs: tuple[Job, ...]) -> None:
    """SEG-05, OBJ-15, OBJ-16, AIR-05: and the same in either kind of segmentation."""
    tracked = []
    for job in jobs:
        for _, dataset in job.each():
            if dataset.Modality == "SEG":
                for segment in dataset.SegmentSequence:
                    [algorithm] = segment.SegmentationAlgorithmIdentificationSequence
                    assert algorithm.AlgorithmName == "lung-seg"
                    assert len(segment.RecommendedDisplayCIELabValue) == 3
                    assert segment.TrackingID
                tracked.append([item.TrackingUID for item in dataset.SegmentSequence])
    [one, other] = tracked
    assert one == other
    assert len(set(one)) == 2


def test_patient_and_study_are_those_of_the_source(jobs: tuple[Job, ...]) -> None:
    """OBJ-01, OBJ-02."""
    for job in jobs:
        source = job.context.sources[0]
        for _, dataset in job.each():
            for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber"):
                assert dataset[keyword].value == source[keyword].value


def test_text_is_unicode(jobs: tuple[Job, ...]) -> None:
    """OBJ-04."""
    assert {dataset.SpecificCharacterSet for job in jobs for _, dataset in job.each()} == {
        "ISO_IR 192"
    }


def test_the_node_and_the_engine_are_the_equipment(jobs: tuple[Job, ...]) -> None:
    """OBJ-05, OBJ-06, AIR-07: maker, model, serial number, versions; what it did, and when."""
    for job in jobs:
        for _, dataset in job.each():
            assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("wetread", "wetread")
            assert dataset.DeviceSerialNumber == "WR-0001"
            assert list(dataset.SoftwareVersions) == ["wetread 0.1.0", "lung-seg 1.2.0"]
            [ours] = [
                item
                for item in dataset.ContributingEquipmentSequence
                if item.PurposeOfReferenceCodeSequence[0].CodeValue == PROCESSING
                and item.ManufacturerModelName == "wetread"
            ]
            assert ours.StationName == "WETREAD1"
            assert list(ours.SoftwareVersions) == ["wetread 0.1.0", "lung-seg 1.2.0"]
            assert ours.ContributionDescription == "AI inference lung-seg 1.2.0"
            assert str(ours.ContributionDateTime) == "20260103080405.000000+0000"


def test_every_time_is_that_of_the_job_and_of_its_series(jobs: tuple[Job, ...]) -> None:
    """OBJ-07, VAL-04: none is that of the clock, and a presentation state has no Content Date."""
    for job in jobs:
        for name, dataset in job.each():
            date, time = CONTENT_DATES.get(name, ("ContentDate", "ContentTime"))
            made = ("20260103", "080405.000000")
            assert (dataset.InstanceCreationDate, dataset.InstanceCreationTime) == made
            assert (dataset[date].value, dataset[time].value) == made
            assert (dataset.SeriesDate, dataset.SeriesTime) == ("20260102", "030405.000000")
            assert ("ContentDate" in dataset) == (name not in CONTENT_DATES)


def test_the_offset_of_its_times_and_the_part_of_the_body_are_told(jobs: tuple[Job, ...]) -> None:
    """OBJ-08, VAL-01: the part where the source names one, and the object may."""
    for job in jobs:
        part = job.context.sources[0].get("BodyPartExamined")
        for name, dataset in job.each():
            assert dataset.TimezoneOffsetFromUTC == "+0000"
            if name in WITH_BODY_PART:
                assert dataset.get("BodyPartExamined") == part


def test_a_series_says_that_it_is_of_a_machine_and_that_nobody_verified_it(
    jobs: tuple[Job, ...],
) -> None:
    """OBJ-09: "AI" first, "(unverified)" last, a number of our block, the Modality of its kind."""
    for job in jobs:
        for name, dataset in job.each():
            assert dataset.SeriesDescription.startswith("AI lung-seg ")
            assert dataset.SeriesDescription.endswith(" (unverified)")
            assert dataset.SeriesNumber > FIRST_OF_OURS
            assert dataset.Modality == MODALITIES[name]


def test_a_description_is_not_longer_than_it_may_be(tmp_path: Path) -> None:
    """OBJ-09: and it still ends with what matters."""
    made = on_radiograph(tmp_path)
    made = replace(made, engine=replace(made.engine, name="engine-" * 9))
    for writer in ordered_writers():
        if writer.handles(made.outcome):
            described = writer.write(made)[0].SeriesDescription
            assert len(described) <= 64
            assert described.endswith(" (unverified)")


def test_the_images_that_were_used_are_named(jobs: tuple[Job, ...]) -> None:
    """OBJ-10, AIR-07: all of them by what is drawn on them, of others those they are about."""
    for job in jobs:
        sources = {str(source.SOPInstanceUID) for source in job.context.sources}
        for _, dataset in job.each():
            assert referred_to(dataset) & sources
        for name in WITH_ALL_IMAGES & job.objects.keys():
            first = job.objects[name][0]
            assert referred_to(first) >= sources
            listed = {
                str(instance.ReferencedSOPInstanceUID)
                for each in first.ReferencedSeriesSequence
                for instance in each.ReferencedInstanceSequence
            }
            assert listed == sources


def test_codes_are_spelt_as_the_standard_spells_them(jobs: tuple[Job, ...]) -> None:
    """OBJ-19: viewers match some by their meaning (PS3.16 Annex D)."""
    seen = set()
    for job in jobs:
        for _, dataset in job.each():
            for item in items(dataset):
                if item.get("CodingSchemeDesignator") == "DCM" and "CodeValue" in item:
                    seen.add((str(item.CodeValue), str(item.CodeMeaning)))
    known = (getattr(codes.DCM, name) for name in codes.DCM.dir())
    spelt = {(code.value, code.meaning) for code in known}
    assert len(seen) > 40
    assert seen - spelt == set()


def test_there_are_no_private_attributes(jobs: tuple[Job, ...]) -> None:
    """AIR-10: nothing is carried by what only we could read."""
    for job in jobs:
        for _, dataset in job.each():
            assert not [element for element in dataset.iterall() if element.tag.is_private]


def test_files_name_the_node_as_what_wrote_them(jobs: tuple[Job, ...]) -> None:
    """OBJ-21."""
    for job in jobs:
        for _, dataset in job.each():
            assert dataset.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
            assert dataset.file_meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
            assert dataset.InstanceCreatorUID == identity.device_uid(job.context.device)
