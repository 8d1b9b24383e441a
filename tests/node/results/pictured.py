"""Contexts whose images can be asked for: from every kind of source that pictures are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundMultiFrameImageStorage

from engines.findings import Code, ImageAnalysis, Outcome, Outlines, SlideAnalysis
from engines.images import SourceFrame
from node.interfaces import ResultContext, ResultWriter
from node.source_images import FileImages
from tests.factories import Modify, instance_files, make_enhanced_ct
from tests.node.results.building import (
    Headers,
    analysis,
    context,
    frames_of,
    image_analysis,
    nothing_found,
    series,
)
from tests.radiographs import make_radiograph
from tests.slides import make_slide

BYTE_LIMIT: Final = 1 << 28
NUCLEUS: Final = Code("84640000", "SCT", "Nucleus")
SQUARE: Final = np.array([[40.0, 30.0], [48.0, 30.0], [48.0, 38.0], [40.0, 38.0]])

Build = Callable[[Path], ResultContext]


def with_images(made: ResultContext, *folders: Path) -> ResultContext:
    """Let a context show the files of folders."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*.dcm"))]
    files = {file.sop_instance_uid: file for file in instance_files(paths)}
    return replace(made, images=FileImages(files, byte_limit=BYTE_LIMIT))


def on_ct(folder: Path, modify: Modify | None = None) -> ResultContext:
    """Find two segments on an axial CT, its pixels twice as high as wide (SC-01)."""
    headers = series(folder / "source", spacing=(5.0, 4.0, 2.0), modify=modify)
    return with_images(context(headers, analysis(headers)), folder / "source")


def nothing_on_ct(folder: Path) -> ResultContext:
    headers = series(folder / "source")
    return with_images(context(headers, nothing_found(headers)), folder / "source")


def on_enhanced(folder: Path) -> ResultContext:
    """Put the same on one Enhanced CT image, whose frames lie in another order than the slices."""
    headers = series(folder / "single")
    path = make_enhanced_ct(
        folder / "source" / "enhanced.dcm", slices=6, rows=48, columns=40, modify=_windows
    )
    header = pydicom.dcmread(path, stop_before_pixels=True)
    frames = [_frame_of(header, len(headers) - index) for index in range(len(headers))]
    outcome = replace(analysis(headers), sources=tuple(frames))
    return with_images(context((header,), outcome), folder / "source")


def on_radiograph(folder: Path, modify: Callable[[Dataset], None] | None = None) -> ResultContext:
    """Find a nodule on the first of two projection images."""
    for number in (1, 2):
        path = folder / "source" / f"{number}.dcm"
        make_radiograph(path, modify=modify or (lambda _: None))
    return with_images(context(*_image_outcome(folder)), folder / "source")


def on_cine(folder: Path) -> ResultContext:
    """Find something on the second frame of an ultrasound cine in colours."""
    make_radiograph(folder / "source" / "cine.dcm", modify=_colour_cine)
    headers, outcome = _image_outcome(folder)
    frame = replace(outcome.sources[0], frame=2)
    return with_images(context(headers, replace(outcome, sources=(frame,))), folder / "source")


def on_slide(folder: Path) -> ResultContext:
    """Outline one nucleus on a slide in tiles."""
    path = make_slide(folder / "source" / "slide.dcm")
    header = pydicom.dcmread(path, stop_before_pixels=True)
    outlines = Outlines(
        key="nucleus",
        label="Nuclei",
        category=Code("91723000", "SCT", "Anatomical Structure"),
        type=NUCLEUS,
        colour=(0, 160, 0),
        polygons=(SQUARE,),
        areas=np.array([16.0]),
    )
    outcome = SlideAnalysis(
        sources=frames_of((header,)), findings=(outlines,), sought=(NUCLEUS,), limits=()
    )
    return with_images(context((header,), outcome), folder / "source")


SOURCES: Final[dict[str, Build]] = {
    "axial CT": on_ct,
    "enhanced CT": on_enhanced,
    "radiograph": on_radiograph,
    "ultrasound cine": on_cine,
    "slide": on_slide,
}


def save(writer: ResultWriter, made: ResultContext, folder: Path) -> list[Path]:
    """Write, save and check the objects of one writer, as the node does."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, dataset in enumerate(writer.write(made)):
        path = folder / f"{writer.name}-{index}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        writer.check(path, made)
        paths.append(path)
    return paths


def again(made: ResultContext, outcome: Outcome) -> ResultContext:
    """Give the same job another outcome."""
    return replace(made, outcome=outcome)


def _image_outcome(folder: Path) -> tuple[Headers, ImageAnalysis]:
    paths = sorted((folder / "source").glob("*.dcm"))
    headers = tuple(pydicom.dcmread(path, stop_before_pixels=True) for path in paths)
    return headers, image_analysis(headers)


def _frame_of(header: Dataset, number: int) -> SourceFrame:
    return SourceFrame(
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        series_instance_uid=str(header.SeriesInstanceUID),
        frame=number,
    )


def _windows(dataset: Dataset, frames: int) -> None:
    """Give every frame a window of its own."""
    for number in range(frames):
        window = Dataset()
        window.WindowCenter, window.WindowWidth = 40 + number, 400
        groups = dataset.PerFrameFunctionalGroupsSequence[number]
        groups.FrameVOILUTSequence = [window]


def _colour_cine(dataset: Dataset) -> None:
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.Modality, dataset.NumberOfFrames = "US", 3
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        delattr(dataset, keyword)
    pixels = np.zeros((3, dataset.Rows, dataset.Columns, 3), np.uint8)
    pixels[:, 40:200, 40:200] = (120, 90, 60)
    dataset.PixelData = pixels.tobytes()
