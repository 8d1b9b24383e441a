"""Attributes that captures of one image and of many have in common (OBJ-20)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from node.interfaces import ResultContext
from node.results._capture import Planned
from node.results._colours import icc_profile
from node.results._grey_scale import numbers
from node.results._objects import refer_to_instances, reference_to, referenced
from node.results._sources import cleaned, header_text
from node.results._text import clean

LOSSY: Final = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
DIRECTIONS: Final = (("L", "R"), ("P", "A"), ("H", "F"))
"""What a positive and a negative component of a vector point to (PS3.3 C.7.6.1.1.1)."""
SOURCE: Final = CodedConcept("121322", "DCM", "Source image for image processing operation")
SMALL: Final = 0.1
"""A component of a direction that is not told."""
COSINES: Final = 6


def describe_capture(dataset: Dataset, context: ResultContext) -> None:
    """Say what it is: drawn by a machine, with words burned in that name no patient."""
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = clean(
        f"Findings of {context.engine.name} {context.engine.version} drawn on the images;"
        f" unverified. {context.engine.clinical_use}",
        1024,
    )
    dataset.ICCProfile = icc_profile()
    dataset.ColorSpace = "SRGB"


def put_pixels(dataset: Dataset, pictures: npt.NDArray[np.uint8]) -> None:
    """Give an object its pixels: RGB uint8 [frame, row, column, sample] (PS3.3 C.7.6.3)."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pictures.shape[1:3]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    data = pictures.tobytes()
    dataset.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))


def refer_to(dataset: Dataset, pictures: Iterable[Planned], instances: Sequence[Dataset]) -> None:
    """Name the frames that are shown, where there are any, else the instances that it is about.

    Instances are named by series too (OBJ-10, OBJ-20). Nothing may look at the object after this.
    """
    items = [referenced(planned.frame) for planned in pictures if planned.frame is not None]
    if not items:
        items = [reference_to(instance) for instance in instances]
    for item in items:
        item.PurposeOfReferenceCodeSequence = [SOURCE]
    dataset.SourceImageSequence = items
    refer_to_instances(dataset, instances)


def say_how_lossy(dataset: Dataset, headers: Iterable[Dataset | None]) -> None:
    """Say that what is shown was compressed with loss, where it was (PS3.3 C.7.6.1.1.5)."""
    for header in headers:
        if header is not None and header_text(header, LOSSY[0]) == "01":
            for keyword in LOSSY:
                element = cleaned(header, keyword)
                if element is not None:
                    dataset.add(element)
            return


def orientation_of(header: Dataset | None) -> list[str]:
    """Return where rows and columns point to in the patient; empty where nobody says."""
    if header is None:
        return []
    cosines = numbers(header, "ImageOrientationPatient")
    if len(cosines) == COSINES:
        return [_direction(cosines[:3]), _direction(cosines[3:])]
    element = cleaned(header, "PatientOrientation")
    if element is None or element.is_empty or len(DIRECTIONS) - 1 != element.VM:
        return []
    return [str(value) for value in element.value]


def _direction(vector: Sequence[float]) -> str:
    """Name a direction by its components, the largest first."""
    order = sorted(range(len(vector)), key=lambda axis: -abs(vector[axis]))
    return "".join(
        DIRECTIONS[axis][0 if vector[axis] > 0 else 1]
        for axis in order
        if abs(vector[axis]) >= SMALL
    )
