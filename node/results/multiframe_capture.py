"""The same pictures as `secondary_capture` in one object: Multi-frame True Color (PS3.3 A.8.5).

For destinations that take one object rather than a series: the card is its first frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage as TrueColor

from node.interfaces import ResultContext, ResultError
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._capture import PictureWriter, Plan, compare_picture
from node.results._capture_attributes import (
    describe_capture,
    put_pixels,
    refer_to,
    say_how_lossy,
)
from node.results._iod import TYPE_1_MISSING, missing_attributes
from node.results._objects import complete_object, new_object

NAME: Final = "multiframe_capture"
SERIES_NUMBER: Final = 9008
OF_SEVERAL: Final = f"multi-frame/FrameIncrementPointer: {TYPE_1_MISSING}"
"""A capture of one frame may not have it (PS3.3 Table C.8-25b), whatever the module says."""


class MultiframeCaptureWriter(PictureWriter):
    """Writes the card and the pictures as frames (SC-01, OBJ-20, VIEW-03)."""

    name: ClassVar[str] = NAME

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make one object."""
        with encoding.translated(NAME):
            return (_encode(context, self._plans.of(context)),)

    def check(self, path: Path, context: ResultContext) -> None:
        """Draw every frame again, and look for its outlines where they have to be."""
        with encoding.translated(NAME):
            written = dcmread(path)
            _require_attributes(written)
            plan = self._plans.of(context)
            if written.NumberOfFrames != len(plan.pictures):
                raise ResultError(f"{NAME}: its frames are not the pictures of the outcome")
            shape = (-1, written.Rows, written.Columns, written.SamplesPerPixel)
            for index, drawn in enumerate(written.pixel_array.reshape(shape)):
                compare_picture(drawn, plan, index)


def _require_attributes(written: Dataset) -> None:
    faults = set(missing_attributes(written))
    if written.NumberOfFrames == 1:
        faults.discard(OF_SEVERAL)
    if faults:
        raise ResultError(f"{NAME}: required attributes: {'; '.join(sorted(faults))}")


def _encode(context: ResultContext, plan: Plan) -> Dataset:
    place = encoding.Place(
        writer=NAME,
        series_instance_uid=identity.series_uid(context, NAME),
        series_number=SERIES_NUMBER,
        description=encoding.described(context, "pictures"),
    )
    dataset = new_object(context, place, TrueColor, "OT")
    describe_capture(dataset, context)
    dataset.PatientOrientation = []
    say_how_lossy(dataset, [planned.header for planned in plan.pictures])
    count = len(plan.pictures)
    put_pixels(dataset, np.stack([plan.draw(index) for index in range(count)]))
    dataset.NumberOfFrames = count
    if count > 1:
        dataset.FrameIncrementPointer = Tag("PageNumberVector")
        dataset.PageNumberVector = list(range(1, count + 1))
    complete_object(dataset, context, place)
    dataset.DateOfSecondaryCapture = dataset.ContentDate
    dataset.TimeOfSecondaryCapture = dataset.ContentTime
    refer_to(dataset, plan.pictures, context.sources)
    return dataset
