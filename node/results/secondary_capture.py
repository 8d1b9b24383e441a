"""The result as pictures that every workstation opens: a Secondary Capture series (PS3.3 A.8.1).

A card with the result in words comes first, then the images with their outlines burned in. One
image each, in RGB: that is what every viewer tried shows as an ordinary series.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from node.interfaces import ResultContext, ResultError
from node.results import _encoding as encoding
from node.results import _identity as identity
from node.results._capture import PictureWriter, Plan, Planned, compare_picture
from node.results._capture_attributes import (
    describe_capture,
    orientation_of,
    put_pixels,
    refer_to,
    say_how_lossy,
)
from node.results._iod import require_attributes
from node.results._objects import complete_object, new_object
from node.results._text import decimals

NAME: Final = "secondary_capture"
SERIES_NUMBER: Final = 9007
NUMBERS: Final = 1000
"""Instance Numbers that each revision of the study has for its pictures (UID-04)."""


class SecondaryCaptureWriter(PictureWriter):
    """Writes the card and the pictures (SC-01, OBJ-20, VIEW-03)."""

    name: ClassVar[str] = NAME

    def write(self, context: ResultContext) -> tuple[Dataset, ...]:
        """Make the images, in the order in which they are to be looked at."""
        with encoding.translated(NAME):
            plan = self._plans.of(context)
            return tuple(_encode(context, plan, index) for index in range(len(plan.pictures)))

    def check(self, path: Path, context: ResultContext) -> None:
        """Draw the picture again, and look for its outlines where they have to be."""
        with encoding.translated(NAME):
            _compare(dcmread(path), context, self._plans.of(context))


def _encode(context: ResultContext, plan: Plan, index: int) -> Dataset:
    planned = plan.pictures[index]
    place = encoding.Place(
        writer=NAME,
        series_instance_uid=identity.series_uid(context, NAME),
        series_number=SERIES_NUMBER,
        description=encoding.described(context, "pictures"),
        index=index,
    )
    dataset = new_object(context, place, SecondaryCaptureImageStorage, "OT")
    describe_capture(dataset, context)
    dataset.InstanceNumber = (context.generation - 1) * NUMBERS + index + 1
    dataset.ImageComments = planned.title
    dataset.PatientOrientation = orientation_of(planned.header)
    if planned.spacing is not None:
        dataset.PixelSpacing = decimals([planned.spacing, planned.spacing])
    say_how_lossy(dataset, [planned.header])
    put_pixels(dataset, plan.draw(index)[np.newaxis])
    complete_object(dataset, context, place)
    dataset.DateOfSecondaryCapture = dataset.ContentDate
    dataset.TimeOfSecondaryCapture = dataset.ContentTime
    refer_to(dataset, [planned], _instances(context, planned))
    return dataset


def _instances(context: ResultContext, planned: Planned) -> list[Dataset]:
    """Return what a picture refers to: its image, or all that was analysed."""
    if planned.frame is None:
        return list(context.sources)
    shown = planned.frame.sop_instance_uid
    return [source for source in context.sources if source.SOPInstanceUID == shown]


def _compare(written: Dataset, context: ResultContext, plan: Plan) -> None:
    require_attributes(written)
    uids = [identity.instance_uid(context, NAME, index) for index in range(len(plan.pictures))]
    if written.SOPInstanceUID not in uids:
        raise ResultError(f"{NAME}: it is none of the pictures of the outcome")
    index = uids.index(written.SOPInstanceUID)
    compare_picture(written.pixel_array, plan, index)
