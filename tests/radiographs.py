"""Synthetic chest radiographs as real DICOM files (PS3.10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation

from tests.factories import make_ct_series, uid

NOT_OF_RADIOGRAPHS = (
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "ConvolutionKernel",
    "FrameOfReferenceUID", "GantryDetectorTilt",
)  # fmt: skip


def make_radiograph(
    path: Path, *, modify: Callable[[Dataset], None] = lambda _: None, seed: int = 1
) -> Path:
    """Write a DX image of 256 x 240 pixels, 12 bits, whose window is 1000 to 3000.

    A ramp runs from 0 at the left to 4095 at the right.
    """
    (source,) = make_ct_series(path.parent / "ct", slices=1, seed=seed)
    dataset = dcmread(source)
    source.unlink()
    source.parent.rmdir()
    for name in NOT_OF_RADIOGRAPHS:
        if name in dataset:
            delattr(dataset, name)
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid("radiograph", str(path.name), str(seed))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.Rows, dataset.Columns = 256, 240
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "US"
    dataset.WindowCenter, dataset.WindowWidth = 2000.5, 2001
    ramp = np.linspace(0, 4095, dataset.Columns).round().astype("<u2")
    dataset.PixelData = np.tile(ramp, (dataset.Rows, 1)).tobytes()
    modify(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
