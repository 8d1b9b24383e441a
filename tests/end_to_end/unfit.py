"""A corpus of series that no engine may be run on silently: each with its coded reason.

Each case writes the files of one study. The engines that they are sent to are made in
`tests.end_to_end.test_suitability_corpus`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    MRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from tests.factories import CORONAL, SAGITTAL, make_ct_series, uid
from tests.radiographs import make_radiograph

Change = Callable[[Dataset, int], None]
SLICES: Final = 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """One damaged or wrong series, and the code of the refusal that has to come of it."""

    code: str
    change: Change = lambda _dataset, _index: None
    options: Mapping[str, Any] = field(default_factory=dict)
    radiograph: bool = False

    def write(self, folder: Path, seed: int) -> list[Path]:
        """Write the study."""
        if self.radiograph:
            path = folder / "0.dcm"
            return [make_radiograph(path, seed=seed, modify=lambda item: self.change(item, 0))]
        options = {"slices": SLICES, "rows": 48, "columns": 48, **self.options}
        return make_ct_series(folder, seed=seed, modify=self._modify, **options)

    def _modify(self, dataset: Dataset, index: int) -> None:
        dataset.ContrastBolusAgent = "Agent"
        self.change(dataset, index)


def put(**values: object) -> Change:
    """Return a change that gives every image other values."""

    def change(dataset: Dataset, _index: int) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def left_out(*keywords: str) -> Change:
    """Return a change that takes attributes away from every image."""

    def change(dataset: Dataset, _index: int) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return change


def on_one(change: Change) -> Change:
    """Return a change of the third image alone."""

    def changed(dataset: Dataset, index: int) -> None:
        if index == 2:
            change(dataset, index)

    return changed


def of_kind(modality: str, sop_class: str, **values: object) -> Change:
    """Return a change into another kind of image."""

    def change(dataset: Dataset, index: int) -> None:
        dataset.Modality = modality
        dataset.SOPClassUID = UID(sop_class)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        put(**values)(dataset, index)

    return change


def smaller(dataset: Dataset, _index: int) -> None:
    dataset.Rows = 40
    dataset.PixelData = dataset.PixelData[: 40 * 48 * 2]


def moved(dataset: Dataset, _index: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, float(z) + 1.2]


def on_the_first(dataset: Dataset, _index: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, float(z) - 10]


def cut_short(dataset: Dataset, _index: int) -> None:
    dataset.PixelData = dataset.PixelData[:1000]


def in_colour(dataset: Dataset, _index: int) -> None:
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(48 * 48 * 3)


def garbled(dataset: Dataset, _index: int) -> None:
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    noise = np.random.default_rng(7).integers(0, 256, 4096, np.uint8).tobytes()
    dataset.PixelData = encapsulate([noise])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def no_number(dataset: Dataset, _index: int) -> None:
    dataset["RescaleSlope"] = DataElement("RescaleSlope", "DS", "nan", validation_mode=IGNORE)


def other_frame(dataset: Dataset, _index: int) -> None:
    dataset.FrameOfReferenceUID = uid("another frame")


def tracer(**values: object) -> list[Dataset]:
    item = Dataset()
    item.RadionuclideTotalDose = 350e6
    item.RadionuclideHalfLife = 6586.2
    item.RadiopharmaceuticalStartTime = "070000"
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def pet(**values: object) -> Change:
    usual: dict[str, object] = {
        "Units": "BQML", "CorrectedImage": ["ATTN", "DECY", "SCAT"], "DecayCorrection": "START",
        "PatientWeight": 70.0, "RadiopharmaceuticalInformationSequence": tracer(),
        "ImageType": ["ORIGINAL", "PRIMARY"],
    }  # fmt: skip
    kind = str(PositronEmissionTomographyImageStorage)
    return of_kind("PT", kind, **{**usual, **values})


def region(**values: object) -> list[Dataset]:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = 1, 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX = item.PhysicalDeltaY = 0.02
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def ultrasound(**values: object) -> Change:
    return of_kind("US", str(UltrasoundImageStorage), **values)


def mr(**values: object) -> Change:
    return of_kind("MR", str(MRImageStorage), BodyPartExamined="KNEE", **values)


SECONDARY: Final = str(SecondaryCaptureImageStorage)
NUCLEAR: Final = str(NuclearMedicineImageStorage)
CASES: Final[Mapping[str, Case]] = {
    "missing slices": Case(code="MISSING_SLICES", options={"missing": [3]}),
    "a tilted gantry": Case(code="GANTRY_TILT", options={"tilt_degrees": 12.0}),
    "another body part": Case(code="BODY_PART", change=put(BodyPartExamined="HEAD")),
    "no contrast agent": Case(code="PHASE", change=left_out("ContrastBolusAgent")),
    "localizers": Case(
        code="LOCALIZER_ONLY", change=put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ),
    "secondary captures": Case(code="SECONDARY_ONLY", change=of_kind("CT", SECONDARY)),
    "burned-in text": Case(code="SECONDARY_ONLY", change=put(BurnedInAnnotation="YES")),
    "mixed spacing": Case(code="MIXED_SPACING", change=on_one(put(PixelSpacing=[2.5, 2.5]))),
    "mixed sizes": Case(code="MIXED_MATRIX", change=on_one(smaller)),
    "mixed planes": Case(
        code="MIXED_PLANES", change=on_one(put(ImageOrientationPatient=list(SAGITTAL)))
    ),
    "two frames of reference": Case(code="MIXED_FRAME", change=on_one(other_frame)),
    "two images at one place": Case(code="SAME_POSITION", change=on_one(on_the_first)),
    "two reconstructions": Case(
        code="SEVERAL_VOLUMES", change=on_one(put(ConvolutionKernel="B70f"))
    ),
    "uneven slices": Case(code="UNEVEN_SPACING", change=on_one(moved)),
    "a coronal series": Case(code="PLANE", options={"orientation": CORONAL}),
    "two slices": Case(code="FEW_SLICES", options={"slices": 2}),
    "too many slices": Case(code="MANY_SLICES", options={"slices": 14}),
    "slices far apart": Case(code="SLICE_DISTANCE", options={"spacing": (12.0, 3.0, 3.0)}),
    "large pixels": Case(code="PIXEL_SIZE", options={"spacing": (5.0, 6.0, 6.0)}),
    "a small matrix": Case(code="SMALL_MATRIX", options={"rows": 24, "columns": 24}),
    "truncated pixel data": Case(code="PIXELS_SHORT", change=on_one(cut_short)),
    "an image without pixels": Case(code="NO_PIXEL_DATA", change=on_one(left_out("PixelData"))),
    "damaged pixel data": Case(code="PIXELS_DAMAGED", change=on_one(garbled)),
    "a slope that is no number": Case(code="BAD_RESCALE", change=on_one(no_number)),
    "a slope of nought": Case(code="BAD_RESCALE", change=on_one(put(RescaleSlope="0"))),
    "no Hounsfield units": Case(code="NOT_CALIBRATED", change=put(RescaleType="US")),
    "lossy images": Case(code="LOSSY", change=put(LossyImageCompression="01")),
    "a projection": Case(code="IMAGE_TYPE", change=put(ImageType=["DERIVED", "SECONDARY", "MIP"])),
    "no position": Case(code="NO_GEOMETRY", change=on_one(left_out("ImagePositionPatient"))),
    "an impossible orientation": Case(
        code="BAD_GEOMETRY", change=put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
    ),
    "images in colour": Case(code="PIXEL_FORMAT", change=in_colour),
    "another modality": Case(code="MODALITY", change=of_kind("NM", NUCLEAR)),
    "uptake without the weight": Case(code="NOT_CALIBRATED", change=pet(PatientWeight=None)),
    "uptake without the dose": Case(
        code="NOT_CALIBRATED",
        change=pet(RadiopharmaceuticalInformationSequence=tracer(RadionuclideTotalDose=None)),
    ),
    "uptake without attenuation": Case(
        code="NOT_CALIBRATED", change=pet(CorrectedImage=["DECY", "SCAT"])
    ),
    "counts, not activity": Case(code="NOT_CALIBRATED", change=pet(Units="CNTS")),
    "ultrasound without regions": Case(code="NOT_CALIBRATED", change=ultrasound()),
    "a Doppler trace": Case(
        code="NOT_CALIBRATED",
        change=ultrasound(SequenceOfUltrasoundRegions=region(RegionSpatialFormat=3)),
    ),
    "the other knee": Case(code="LATERALITY", change=mr(Laterality="R")),
    "a knee of no side": Case(code="LATERALITY", change=mr()),
    "a lateral radiograph": Case(code="VIEW", change=put(ViewPosition="LL"), radiograph=True),
    "an inverted radiograph": Case(
        code="PIXEL_FORMAT",
        change=put(ViewPosition="PA", PhotometricInterpretation="MONOCHROME1"),
        radiograph=True,
    ),
}
FITTING: Final[Mapping[str, Case]] = {
    "CT": Case(code=""),
    "PET": Case(code="", change=pet()),
    "ultrasound": Case(code="", change=ultrasound(SequenceOfUltrasoundRegions=region())),
    "the left knee": Case(code="", change=mr(Laterality="L")),
    "a frontal radiograph": Case(code="", change=put(ViewPosition="PA"), radiograph=True),
}
"""As the cases are but for their fault: these are analysed, so it is the fault that is refused."""
