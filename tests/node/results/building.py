"""Outcomes and contexts on synthetic series, as an engine and the node would hand them over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from engines.findings import (
    Analysis,
    Classification,
    Code,
    ImageAnalysis,
    MaskArray,
    Measurement,
    Outcome,
    Refusal,
    Segment,
)
from engines.images import Grid, SourceFrame, Vector
from node.interfaces import (
    DeviceIdentity,
    EngineIdentity,
    ResultContext,
    ResultWriter,
    SupersededResult,
)
from node.results.box_report import BoxReportWriter
from node.results.classification_report import ClassificationReportWriter
from node.results.measurement_report import MeasurementReportWriter
from node.results.segmentation import SegmentationWriter
from node.results.text_report import TextReportWriter
from tests.factories import CtOptions, make_ct_series, uid

Headers: TypeAlias = tuple[Dataset, ...]
Modify: TypeAlias = Callable[[Dataset, int], None]

ENHANCED_CT: Final = UID("1.2.840.10008.5.1.4.1.1.2.1")
CREATED: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OBLIQUE: Final = (0.9396926208, 0.3420201433, 0.0, -0.2961981327, 0.8137976814, -0.5)

STRUCTURE: Final = Code("123037004", "SCT", "Anatomical Structure")
LUNG: Final = Code("39607008", "SCT", "Lung")
NODULE: Final = Code("27925004", "SCT", "Nodule")
EFFUSION: Final = Code("60046008", "SCT", "Pleural effusion")
PERCENT: Final = Code("%", "UCUM", "Percent")
LEFT: Final = Code("7771000", "SCT", "Left")
ML: Final = Code("ml", "UCUM", "ml")
MM2: Final = Code("mm2", "UCUM", "mm2")
HU: Final = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
REASON: Final = Code("SLICES_MISSING", "99WETREAD", "Slices are missing")


def read_headers(paths: Sequence[Path]) -> Headers:
    """Read headers as the node does, without pixels, in ascending order along the normal."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    return tuple(sorted(headers, key=_height))


def series(folder: Path, **options: Unpack[CtOptions]) -> Headers:
    """Make a series on disk and read its headers back."""
    small: CtOptions = {"slices": 6, "rows": 48, "columns": 40}
    small.update(options)
    return read_headers(make_ct_series(folder, **small))


def grid_of(headers: Headers) -> Grid:
    """Build the grid that single-frame headers describe."""
    first = headers[0]
    orientation = [float(value) for value in first.ImageOrientationPatient]
    positions = [_vector(header.ImagePositionPatient) for header in headers]
    steps = np.linalg.norm(np.diff(np.array(positions), axis=0), axis=1)
    return Grid(
        shape=(len(headers), first.Rows, first.Columns),
        positions=tuple(positions),
        row_direction=_vector(orientation[:3]),
        column_direction=_vector(orientation[3:]),
        spacing=(
            float(steps[0]) if len(steps) else None,
            float(first.PixelSpacing[0]),
            float(first.PixelSpacing[1]),
        ),
        slice_thickness=float(first.SliceThickness) if first.get("SliceThickness") else None,
        frame_of_reference_uid=str(first.FrameOfReferenceUID),
        regular=bool(np.allclose(steps, steps[:1], atol=1e-3)),
    )


def frames_of(headers: Headers) -> tuple[SourceFrame, ...]:
    return tuple(
        SourceFrame(
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
            series_instance_uid=str(header.SeriesInstanceUID),
        )
        for header in headers
    )


def segment(key: str, mask: MaskArray, **changes: object) -> Segment:
    """Make a left lung with a volume, a mean and an area on its first slice."""
    slice_index = int(np.argmax(mask.any(axis=(1, 2))))
    made = Segment(
        key=key,
        label=f"Left lung {key}",
        category=STRUCTURE,
        type=LUNG,
        region=LUNG,
        laterality=LEFT,
        colour=(220, 120, 40),
        labels=mask.view(np.uint8),
        measurements=(
            Measurement(name=Code("118565006", "SCT", "Volume"), value=1234.5678, unit=ML),
            Measurement(
                name=Code("112031", "DCM", "Attenuation Coefficient"),
                value=-850.25,
                unit=HU,
                derivation=Code("373098007", "SCT", "Mean"),
            ),
            Measurement(
                name=Code("42798000", "SCT", "Area"),
                value=3600.123456789,
                unit=MM2,
                slice_index=slice_index,
            ),
        ),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any field, by name


def masks(shape: tuple[int, int, int]) -> tuple[MaskArray, MaskArray]:
    """Make two masks without symmetry that do not overlap; the outer slices stay empty."""
    generator = np.random.default_rng(7)
    first = np.zeros(shape, dtype=np.bool_)
    second = np.zeros(shape, dtype=np.bool_)
    depth, rows, columns = shape
    inner = slice(1, depth - 1) if depth > 2 else slice(None)
    block = first[inner, : rows // 3, columns // 4 :]
    block |= generator.random(block.shape) < 0.4
    second[inner, rows // 2 :, : columns // 2] = True
    second[0 if depth < 3 else 1, 0, columns - 1] = not first[0 if depth < 3 else 1, 0, -1]
    return first, second


def analysis(headers: Headers, *, overlap: bool = False) -> Analysis:
    """Make an analysis with two segments."""
    grid = grid_of(headers)
    first, second = masks(grid.shape)
    if overlap:
        second |= first
    return Analysis(
        grid=grid,
        sources=frames_of(headers),
        findings=(segment("one", first), segment("two", second, colour=(30, 90, 200))),
        sought=(LUNG,),
        limits=("The lung bases lie outside the images.",),
    )


def nothing_found(headers: Headers) -> Analysis:
    return replace(analysis(headers), findings=(), sought=(LUNG, NODULE))


def image_analysis(headers: Headers) -> ImageAnalysis:
    """Make an analysis of single images: a nodule in the first, nothing in the others."""
    certainty = Measurement(
        name=Code("111012", "DCM", "Certainty of Finding"), value=91.512345, unit=PERCENT
    )
    nodule = Classification(
        key="nodule", label="Nodule", type=NODULE, region=LUNG, image=0, measurements=(certainty,)
    )
    return ImageAnalysis(
        sources=frames_of(headers[:2]),
        findings=(nodule,),
        sought=(NODULE, EFFUSION),
        limits=("The certainty was not calibrated.",),
    )


def refusal() -> Refusal:
    return Refusal(reason=REASON, detail="3 slices missing between z = -40.0 mm and -30.0 mm")


def context(headers: Headers, outcome: Outcome, *, generation: int = 1) -> ResultContext:
    """Make the context of a job on one series."""
    return ResultContext(
        job_key=f"{headers[0].StudyInstanceUID}|{generation}|lungs|lung-seg",
        generation=generation,
        created=CREATED.replace(day=1 + generation),
        series_created=CREATED,
        rule="lungs",
        rule_revision=3,
        device=DeviceIdentity(
            manufacturer="wetread",
            model="wetread",
            serial_number="WR-0001",
            station_name="WETREAD1",
            software_version="0.1.0",
        ),
        engine=EngineIdentity(
            name="lung-seg",
            version="1.2.0",
            digest="ab" * 32,
            intended_use="Research on lung volumes",
            clinical_use="Not for clinical use.",
            parameters=(("threshold", "-500"),),
        ),
        outcome=outcome,
        sources=headers,
        superseded=(),
        written={},
    )


def write_all(context: ResultContext) -> dict[str, tuple[Dataset, ResultContext, ResultWriter]]:
    """Run every writer that handles the outcome, in order, as the node does."""
    made: dict[str, tuple[Dataset, ResultContext, ResultWriter]] = {}
    written: Mapping[str, tuple[Dataset, ...]] = {}
    for writer in (
        SegmentationWriter(),
        MeasurementReportWriter(),
        ClassificationReportWriter(),
        BoxReportWriter(),
        TextReportWriter(),
    ):
        if writer.handles(context.outcome):
            current = replace(context, written=written)
            objects = writer.write(current)
            written = {**written, writer.name: objects}
            made[writer.name] = (objects[0], current, writer)
    return made


def save_all(context: ResultContext, folder: Path) -> dict[str, Path]:
    """Write, save and check every object; return the files by writer."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, (dataset, current, writer) in write_all(context).items():
        path = folder / f"{name}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        writer.check(path, current)
        paths[name] = path
    return paths


def superseded_by(dataset: Dataset, writer: str) -> SupersededResult:
    return SupersededResult(
        writer=writer,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
    )


def multi_frame(headers: Headers) -> tuple[Headers, tuple[SourceFrame, ...]]:
    """Put a series into one Enhanced CT header, its frames in another order than the slices.

    Returns the header, and the frames in the order of the slices.
    """
    order = np.random.default_rng(3).permutation(len(headers))
    enhanced = Dataset()
    enhanced.update(headers[0])
    enhanced.SOPClassUID = ENHANCED_CT
    enhanced.SOPInstanceUID = uid("enhanced", headers[0].SeriesInstanceUID)
    enhanced.NumberOfFrames = len(headers)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(enhanced, keyword)
    enhanced.SharedFunctionalGroupsSequence = [_shared_groups(headers[0])]
    enhanced.PerFrameFunctionalGroupsSequence = [_frame_groups(headers[i]) for i in order]
    frames = [
        SourceFrame(
            sop_class_uid=str(ENHANCED_CT),
            sop_instance_uid=str(enhanced.SOPInstanceUID),
            series_instance_uid=str(enhanced.SeriesInstanceUID),
            frame=int(np.flatnonzero(order == index)[0]) + 1,
        )
        for index in range(len(headers))
    ]
    return (enhanced,), tuple(frames)


def _shared_groups(header: Dataset) -> Dataset:
    measures, orientation, groups = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = header.PixelSpacing, header.SliceThickness
    orientation.ImageOrientationPatient = header.ImageOrientationPatient
    groups.PixelMeasuresSequence, groups.PlaneOrientationSequence = [measures], [orientation]
    return groups


def _frame_groups(header: Dataset) -> Dataset:
    position, groups = Dataset(), Dataset()
    position.ImagePositionPatient = header.ImagePositionPatient
    groups.PlanePositionSequence = [position]
    return groups


def _vector(values: Sequence[float]) -> Vector:
    x, y, z = (float(value) for value in values)
    return (x, y, z)


def _height(header: Dataset) -> float:
    orientation = _array(header.ImageOrientationPatient)
    normal = np.cross(orientation[:3], orientation[3:])
    return float(np.dot(normal, _array(header.ImagePositionPatient)))


def _array(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.array([float(value) for value in values])
