"""Synthetic CT series as real DICOM files (PS3.10): a body phantom with known geometry."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from engines.images import InstanceFile

IMPLEMENTATION_CLASS_UID: Final = UID("2.25.329800735698586629295641978511506172918")
AXIAL: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL: Final = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL: Final = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
INTERCEPT: Final = -1024

Modify: TypeAlias = Callable[[Dataset, int], None]
FloatArray: TypeAlias = npt.NDArray[np.float64]
HuArray: TypeAlias = npt.NDArray[np.int16]


class CtOptions(TypedDict, total=False):
    """What can be chosen of a series; the defaults stand in `CtPlan`."""

    slices: int
    rows: int
    columns: int
    spacing: tuple[float, float, float]
    orientation: tuple[float, ...]
    centre: tuple[float, float, float]
    tilt_degrees: float
    missing: Sequence[int]
    slice_thickness: float | None
    noise: float
    seed: int
    series: int
    series_description: str
    modify: Modify | None


@dataclass(frozen=True, kw_only=True)
class CtPlan:
    """One CT series to be made.

    `spacing` is (between slices, between rows, between columns) in mm; `orientation` is Image
    Orientation (Patient); `centre` is the middle of the stack in the patient (LPS, mm), where the
    phantom is centred too. `tilt_degrees` shears the stack as a tilted gantry does. `missing`
    lists slices (0 is the lowest along the normal) that are left out. The same `seed` gives the
    same study; `series` tells series of one study apart. `modify` may change each data set before
    it is written; it is handed the index of the slice.
    """

    slices: int = 20
    rows: int = 128
    columns: int = 128
    spacing: tuple[float, float, float] = (5.0, 3.0, 3.0)
    orientation: tuple[float, ...] = AXIAL
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tilt_degrees: float = 0.0
    missing: Sequence[int] = ()
    slice_thickness: float | None = 5.0
    noise: float = 0.0
    seed: int = 1
    series: int = 1
    series_description: str = "Synthetic body"
    modify: Modify | None = None


def make_ct_series(folder: Path, **options: Unpack[CtOptions]) -> list[Path]:
    """Write a CT series of a synthetic body; return its files, in ascending order of position.

    The body is an elliptic cylinder along the patient's axis: skin, a layer of fat, soft tissue,
    two lungs in the upper half, a spine, and a table below it that is no part of the body.
    """
    plan = CtPlan(**options)
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(plan.seed)
    files = []
    for index in range(plan.slices):
        position = slice_position(plan, index)
        values = phantom(_points(plan, position), plan)
        if plan.noise:
            noisy = values + generator.normal(0.0, plan.noise, values.shape)
            values = np.clip(noisy.round(), -1024, 3071).astype(np.int16)
        if index in plan.missing:
            continue
        dataset = _dataset(plan, index, position, values)
        if plan.modify is not None:
            plan.modify(dataset, index)
        path = folder / f"{index:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def make_enhanced_ct(path: Path, **options: Unpack[CtOptions]) -> Path:
    """Write the same body as one Enhanced CT image with a frame for every slice.

    It has the functional groups that geometry and rescaling need, not all that PS3.3 A.38 asks for.
    Frames lie in the file in descending order of position, to tempt readers that trust it.
    `modify` is handed the whole data set and the number of frames.
    """
    plan = CtPlan(**options)
    order = [index for index in reversed(range(plan.slices)) if index not in plan.missing]
    positions = [slice_position(plan, index) for index in order]
    values = np.stack([phantom(_points(plan, position), plan) for position in positions])
    dataset = _dataset(plan, 0, positions[0], values[0])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
                 "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType",
                 "WindowCenter", "WindowWidth", "ConvolutionKernel", "KVP", "ExposureTime",
                 "XRayTubeCurrent", "GantryDetectorTilt"):  # fmt: skip
        delattr(dataset, name)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = (values - INTERCEPT).astype("<i2").tobytes()
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(plan)]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame_groups(position, number) for number, position in enumerate(positions, start=1)
    ]
    if plan.modify is not None:
        plan.modify(dataset, len(order))
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def instance_files(paths: Sequence[Path]) -> list[InstanceFile]:
    """Describe files as the node hands them to an engine."""
    files = []
    for path in paths:
        meta = dcmread(path, stop_before_pixels=True).file_meta
        files.append(
            InstanceFile(
                path=path,
                sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
                sop_class_uid=str(meta.MediaStorageSOPClassUID),
            )
        )
    return files


def uid(*parts: object) -> str:
    """Return a UID that is the same whenever the parts are."""
    name = "/".join(str(part) for part in parts)
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def slice_position(plan: CtPlan, index: int) -> FloatArray:
    """Return the centre of the first voxel of a slice (LPS, mm)."""
    row, column = np.array(plan.orientation[:3]), np.array(plan.orientation[3:])
    normal = np.cross(row, column)
    tilt = np.tan(np.radians(plan.tilt_degrees))
    along = (index - (plan.slices - 1) / 2) * plan.spacing[0]
    corner = (plan.columns - 1) / 2 * plan.spacing[2] * row
    corner = corner + (plan.rows - 1) / 2 * plan.spacing[1] * column
    position: FloatArray = np.array(plan.centre) - corner + along * (normal + tilt * column)
    return position


def phantom(points: FloatArray, plan: CtPlan) -> HuArray:
    """Return HU int16 [row, column] of the body at patient coordinates [row, column, xyz] in mm."""
    x, y, z = np.moveaxis(points - np.array(plan.centre), -1, 0)
    wide = 0.40 * plan.columns * plan.spacing[2]
    deep = 0.28 * plan.rows * plan.spacing[1]
    values = np.full(x.shape, -1000, dtype=np.int16)
    radius = (x / wide) ** 2 + (y / deep) ** 2
    values[radius < 1.0] = 40  # skin
    values[radius < 0.94] = -100  # fat
    values[radius < 0.60] = 50  # soft tissue
    spine = ((x / (0.16 * wide)) ** 2 + ((y - 0.5 * deep) / (0.2 * deep)) ** 2) < 1.0
    for side in (-1, 1):
        lung = ((x - side * 0.38 * wide) / (0.24 * wide)) ** 2 + (y / (0.5 * deep)) ** 2 < 1.0
        values[lung & (z > 0) & ~spine] = -850
    values[spine] = 500
    table = (np.abs(y - 1.22 * deep) < 0.05 * deep) & (np.abs(x) < 1.1 * wide)
    values[table] = 120
    return values


def _points(plan: CtPlan, position: FloatArray) -> FloatArray:
    row, column = np.array(plan.orientation[:3]), np.array(plan.orientation[3:])
    i = np.arange(plan.columns)[None, :, None] * plan.spacing[2] * row
    j = np.arange(plan.rows)[:, None, None] * plan.spacing[1] * column
    points: FloatArray = position + i + j
    return points


def _dataset(plan: CtPlan, index: int, position: FloatArray, values: HuArray) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    _identify(dataset, plan, index)
    _describe_study(dataset, plan)
    _place(dataset, plan, position)
    _fill(dataset, values)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    return dataset


def _item(**values: object) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _shared_groups(plan: CtPlan) -> Dataset:
    measures = _item(PixelSpacing=[_decimal(value) for value in plan.spacing[1:]])
    if plan.slice_thickness is not None:
        measures.SliceThickness = _decimal(plan.slice_thickness)
    orientation = _item(ImageOrientationPatient=[_decimal(value) for value in plan.orientation])
    transformation = _item(RescaleSlope="1", RescaleIntercept=str(INTERCEPT), RescaleType="HU")
    return _item(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[orientation],
        PixelValueTransformationSequence=[transformation],
        FrameAnatomySequence=[_item(FrameLaterality="U")],
    )


def _frame_groups(position: FloatArray, number: int) -> Dataset:
    return _item(
        PlanePositionSequence=[_item(ImagePositionPatient=[_decimal(x) for x in position])],
        FrameContentSequence=[
            _item(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number])
        ],
    )


def _identify(dataset: Dataset, plan: CtPlan, index: int) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = uid("instance", plan.seed, plan.series, index)
    dataset.StudyInstanceUID = uid("study", plan.seed)
    dataset.SeriesInstanceUID = uid("series", plan.seed, plan.series)
    dataset.FrameOfReferenceUID = uid("frame of reference", plan.seed)
    dataset.PositionReferenceIndicator = ""
    dataset.InstanceNumber = index + 1
    dataset.SeriesNumber = plan.series
    dataset.AcquisitionNumber = 1


def _describe_study(dataset: Dataset, plan: CtPlan) -> None:
    dataset.PatientName = f"Phantom^Seed{plan.seed}"
    dataset.PatientID = f"PHANTOM-{plan.seed}"
    dataset.PatientBirthDate = "19600229"
    dataset.PatientSex = "O"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20240301"
    dataset.ContentDate = "20240301"
    dataset.StudyTime, dataset.SeriesTime = "081500", "081600"
    dataset.AcquisitionTime = dataset.ContentTime = "081630"
    dataset.AccessionNumber = f"A{plan.seed:06d}"
    dataset.StudyID = str(plan.seed)
    dataset.StudyDescription = "CT of a phantom"
    dataset.SeriesDescription = plan.series_description
    dataset.ReferringPhysicianName = "Referring^Physician"
    dataset.Modality = "CT"
    dataset.Manufacturer = "Phantom Works"
    dataset.ManufacturerModelName = "Ellipse"
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFS"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP = 120
    dataset.ExposureTime, dataset.XRayTubeCurrent = 500, 200
    dataset.ConvolutionKernel = "B30f"


def _place(dataset: Dataset, plan: CtPlan, position: FloatArray) -> None:
    dataset.ImagePositionPatient = [_decimal(value) for value in position]
    dataset.ImageOrientationPatient = [_decimal(value) for value in plan.orientation]
    dataset.PixelSpacing = [_decimal(value) for value in plan.spacing[1:]]
    if plan.slice_thickness is not None:
        dataset.SliceThickness = _decimal(plan.slice_thickness)
    else:
        dataset.SliceThickness = None
    dataset.GantryDetectorTilt = _decimal(plan.tilt_degrees)


def _fill(dataset: Dataset, values: HuArray) -> None:
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept, dataset.RescaleSlope = str(INTERCEPT), "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.PixelData = (values - INTERCEPT).astype("<i2").tobytes()


def _decimal(value: float) -> str:
    """Write a DS value: 16 characters at most (PS3.5 6.2)."""
    text = f"{value:.10g}"
    return text if len(text) <= 16 else f"{value:.8g}"
