"""A synthetic slide as a real DICOM file: pink tissue with blue nuclei on white glass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from tests.factories import make_ct_series, uid

GLASS, TISSUE, NUCLEUS = (245, 245, 245), (230, 170, 200), (90, 60, 140)
ROWS, COLUMNS, TILE = 100, 130, 40
NUCLEI: Final = ((30, 40), (30, 70), (60, 50), (62, 90))
"""Row and column of the first pixel of squares."""
NOT_OF_SLIDES = (
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "ConvolutionKernel",
    "GantryDetectorTilt", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "WindowCenter", "WindowWidth", "KVP", "BodyPartExamined",
)  # fmt: skip


def colours(nuclei: Sequence[tuple[int, int]], side: int) -> npt.NDArray[np.uint8]:
    """Return RGB uint8 [row, column, sample]."""
    image = np.empty((ROWS, COLUMNS, 3), np.uint8)
    image[:] = GLASS
    image[16:84, 20:110] = TISSUE
    for row, column in nuclei:
        image[row : row + side, column : column + side] = NUCLEUS
    return image


def make_slide(
    path: Path,
    *,
    nuclei: Sequence[tuple[int, int]] = NUCLEI,
    side: int = 8,
    modify: Callable[[Dataset], None] = lambda _: None,
) -> Path:
    """Write it as 3 x 4 tiles of 40 pixels, TILED_FULL, 0.5 micrometres a pixel."""
    (source,) = make_ct_series(path.parent / "ct", slices=1, rows=16, columns=16)
    dataset = dcmread(source)
    source.unlink()
    for name in NOT_OF_SLIDES:
        delattr(dataset, name)
    dataset.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    dataset.SOPInstanceUID = uid("slide", path.name)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality, dataset.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.ContainerIdentifier = "S-1"
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = ROWS, COLUMNS
    dataset.Rows = dataset.Columns = TILE
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    whole = np.full((3 * TILE, 4 * TILE, 3), 255, np.uint8)
    whole[:ROWS, :COLUMNS] = colours(nuclei, side)
    tiles = whole.reshape(3, TILE, 4, TILE, 3).swapaxes(1, 2)
    dataset.NumberOfFrames = 12
    dataset.PixelData = tiles.tobytes()
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.0005, 0.0005], 0.001
    shared.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    _put_on_glass(dataset)
    modify(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _put_on_glass(dataset: Dataset) -> None:
    """Say how it lies on the slide and how light came through (PS3.3 C.8.12.4, C.8.12.5).

    OHIF reads all of it.
    """
    spacing = float(
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0]
    )
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin, path, illumination = Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = "20", "40"
    dataset.TotalPixelMatrixOriginSequence = [origin]
    dataset.ImagedVolumeWidth, dataset.ImagedVolumeHeight = COLUMNS * spacing, ROWS * spacing
    dataset.ImagedVolumeDepth = 1.0
    dataset.VolumetricProperties, dataset.FocusMethod = "VOLUME", "AUTO"
    dataset.SpecimenLabelInImage, dataset.ExtendedDepthOfField = "NO", "NO"
    dataset.TotalPixelMatrixFocalPlanes, dataset.NumberOfOpticalPaths = 1, 1
    illumination.CodeValue, illumination.CodingSchemeDesignator = "111744", "DCM"
    illumination.CodeMeaning = "Brightfield illumination"
    path.OpticalPathIdentifier, path.IlluminationTypeCodeSequence = "1", [illumination]
    dataset.OpticalPathSequence = [path]
