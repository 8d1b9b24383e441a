"""Pictures of a segmentation over its source images: what a workstation would show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

Rgb: TypeAlias = npt.NDArray[np.uint8]
WINDOW_CENTRE: Final = 40.0  # HU, soft tissue
WINDOW_WIDTH: Final = 400.0
BRIGHTEST: Final = 99.5  # percentile
OPACITY: Final = 0.45
PANELS: Final = 3
LEGEND_ROW: Final = 18
SMALLEST_WIDTH: Final = 512
WHITE_POINT: Final = np.array([0.95047, 1.0, 1.08883])  # D65
XYZ_TO_SRGB: Final = np.array(
    [
        [3.2406, -1.5372, -0.4986],
        [-0.9689, 1.8758, 0.0415],
        [0.0557, -0.2040, 1.0570],
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SegmentFrame:
    """One frame of a SEG: mask bool [row, column] of one segment on one source image."""

    segment: int
    source_uid: str
    source_frame: int
    position: float
    mask: npt.NDArray[np.bool_]


def overlay(segmentation: Path, sources: Mapping[str, Path], picture: Path) -> None:
    """Write a PNG of three source images, evenly chosen, with the segments drawn over them.

    `sources` gives the file of each SOP Instance UID. Colours are those the SEG recommends.
    """
    dataset = dcmread(segmentation)
    frames = _frames(dataset)
    colours = {
        int(item.SegmentNumber): cielab_to_srgb(item.RecommendedDisplayCIELabValue)
        for item in dataset.SegmentSequence
    }
    by_image: dict[tuple[str, int], list[_SegmentFrame]] = {}
    for frame in frames:
        by_image.setdefault((frame.source_uid, frame.source_frame), []).append(frame)
    chosen = _spread(sorted(by_image, key=lambda key: by_image[key][0].position))
    panels = [
        _panel(sources[uid], number, by_image[uid, number], colours) for uid, number in chosen
    ]
    body = np.concatenate(panels, axis=1)
    scale = max(1, SMALLEST_WIDTH // body.shape[1])
    body = np.kron(body, np.ones((scale, scale, 1), dtype=np.uint8))
    _with_legend(body, dataset, colours).save(picture)


def _spread(
    images: Sequence[tuple[str, int]],
) -> list[tuple[str, int]]:
    if len(images) <= PANELS:
        return list(images)
    steps = np.linspace(0, len(images) - 1, PANELS + 2)[1:-1]
    return [images[round(step)] for step in steps]


def _frames(dataset: Dataset) -> list[_SegmentFrame]:
    masks = np.atleast_3d(dataset.pixel_array).reshape(-1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    normal = np.cross(orientation[:3], orientation[3:])
    frames = []
    for own, mask in zip(dataset.PerFrameFunctionalGroupsSequence, masks, strict=True):
        group = Dataset({**shared, **own})  # what is equal in all frames stands with none of them
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        numbers = source.get("ReferencedFrameNumber", 1)
        frames.append(
            _SegmentFrame(
                segment=int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber),
                source_uid=str(source.ReferencedSOPInstanceUID),
                source_frame=int(numbers),
                position=float(np.dot(normal, group.PlanePositionSequence[0].ImagePositionPatient)),
                mask=mask.astype(bool),
            )
        )
    return frames


def _window(values: npt.NDArray[np.float64], dataset: Dataset) -> tuple[float, float]:
    """Return what is black and what is white: soft tissue in CT, else all but the brightest."""
    if dataset.get("Modality") == "CT":
        return WINDOW_CENTRE - WINDOW_WIDTH / 2, WINDOW_CENTRE + WINDOW_WIDTH / 2
    low, high = float(values.min()), float(np.percentile(values, BRIGHTEST))
    return low, max(high, low + 1)


def _panel(
    source: Path,
    frame_number: int,
    members: Sequence[_SegmentFrame],
    colours: Mapping[int, tuple[int, int, int]],
) -> Rgb:
    dataset = dcmread(source)
    pixels = dataset.pixel_array
    if pixels.ndim == 3:  # noqa: PLR2004 - a multi-frame image
        pixels = pixels[frame_number - 1]
    values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)
    low, high = _window(values, dataset)
    grey = np.clip((values - low) / (high - low), 0, 1) * 255
    image = np.repeat(grey[..., np.newaxis], 3, axis=2)
    for member in members:
        colour = np.array(colours[member.segment], dtype=np.float64)
        image[member.mask] = image[member.mask] * (1 - OPACITY) + colour * OPACITY
    return image.astype(np.uint8)


def _with_legend(
    body: Rgb, dataset: Dataset, colours: Mapping[int, tuple[int, int, int]]
) -> Image.Image:
    height = LEGEND_ROW * (len(colours) + 1) + 4
    picture = Image.new("RGB", (body.shape[1], body.shape[0] + height), "black")
    picture.paste(Image.fromarray(body), (0, 0))
    draw = ImageDraw.Draw(picture)
    draw.text((4, body.shape[0] + 2), "AI - preliminary, unverified", fill="white")
    for row, item in enumerate(dataset.SegmentSequence, start=1):
        top = body.shape[0] + 2 + row * LEGEND_ROW
        draw.rectangle((4, top, 16, top + 12), fill=colours[int(item.SegmentNumber)])
        draw.text((24, top), str(item.SegmentLabel), fill="white")
    return picture


def cielab_to_srgb(encoded: Sequence[int]) -> tuple[int, int, int]:
    """Turn a Recommended Display CIELab Value (PS3.3 C.10.7.1.1, 16 bit) into sRGB, 0-255."""
    lightness = encoded[0] * 100 / 65535
    a, b = (value * 255 / 65535 - 128 for value in encoded[1:])
    y = (lightness + 16) / 116
    ratios = np.array([y + a / 500, y, y - b / 200])
    linear_light = np.where(ratios > 6 / 29, ratios**3, (ratios - 16 / 116) * 3 * (6 / 29) ** 2)
    rgb = np.clip(XYZ_TO_SRGB @ (linear_light * WHITE_POINT), 0, 1)
    gamma = np.where(rgb <= 0.0031308, rgb * 12.92, 1.055 * rgb ** (1 / 2.4) - 0.055)  # noqa: PLR2004 - IEC 61966-2-1
    red, green, blue = (round(float(value) * 255) for value in gamma)
    return red, green, blue
