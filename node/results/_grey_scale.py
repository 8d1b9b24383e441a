"""How grey images are shown, carried over into a presentation state (PS3.3 C.11.1, C.11.2, C.11.8).

A presentation state stands in for what the image says of it: what is left out is no transformation
at all (PS3.4 N.2). So the image's own modality and VOI transformation go into it unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from engines.images import SourceFrame
from node.results._objects import referenced
from node.results._sources import UNREADABLE, header_text
from node.results._text import decimals

LINEAR: Final = "LINEAR"
_FUNCTIONS: Final = (LINEAR, "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A lookup table: its three descriptors, its entries as they are encoded, what it makes."""

    descriptor: tuple[int, int, int]
    signed: bool
    data: bytes
    makes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows that an image offers, in values after its rescale."""

    centres: tuple[float, ...]
    widths: tuple[float, ...]
    function: str

    def in_stored_values(self, slope: float, intercept: float) -> Windows:
        """Say the same before a rescale with a slope above 0 (PS3.3 C.11.2.1.2.1)."""
        half, pixel = (0.5, 1.0) if self.function == LINEAR else (0.0, 0.0)
        return Windows(
            centres=tuple((centre - half - intercept) / slope + half for centre in self.centres),
            widths=tuple((width - pixel) / slope + pixel for width in self.widths),
            function=self.function,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyScale:
    """How a frame is shown: rescale or table to modality values, windows or table to grey."""

    rescale: tuple[float, float] | None
    rescale_type: str
    modality_table: Table | None
    voi: Windows | Table | None
    inverse: bool


def grey_scale(header: Dataset) -> GreyScale:
    """Read it from a header; what is not valid is left out."""
    return GreyScale(
        rescale=_rescale(header),
        rescale_type=header_text(header, "RescaleType") or "US",
        modality_table=_table(header, "ModalityLUTSequence"),
        voi=_table(header, "VOILUTSequence") or _windows(header),
        inverse=header_text(header, "PhotometricInterpretation") == "MONOCHROME1",
    )


def put_grey_scale(
    dataset: Dataset, frames: Sequence[SourceFrame], scales: Sequence[GreyScale]
) -> None:
    """Give a presentation state how its images are shown; tables and polarity are those of all.

    There is room for one rescale. Where frames differ in it, as in PET, it is left out, and windows
    are in stored values: the same grey comes out.
    """
    first = scales[0]
    if first.modality_table is not None:
        dataset.ModalityLUTSequence = [_table_item(first.modality_table, "ModalityLUTType")]
        found = [scale.voi for scale in scales]
    elif len({(scale.rescale, scale.rescale_type) for scale in scales}) == 1:
        if first.rescale is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept = decimals(first.rescale)
            dataset.RescaleType = first.rescale_type
        found = [scale.voi for scale in scales]
    else:
        found = [_in_stored_values(scale) for scale in scales]
    items = _voi_items(frames, found)
    if items:
        dataset.SoftcopyVOILUTSequence = items
    dataset.PresentationLUTShape = "INVERSE" if first.inverse else "IDENTITY"


def _in_stored_values(scale: GreyScale) -> Windows | Table | None:
    slope, intercept = scale.rescale or (1.0, 0.0)
    if not isinstance(scale.voi, Windows) or slope <= 0:
        return None
    return scale.voi.in_stored_values(slope, intercept)


def _voi_items(
    frames: Sequence[SourceFrame], found: Sequence[Windows | Table | None]
) -> list[Dataset]:
    """Make an item for each transformation, which names its images where there are several."""
    by_voi: dict[Windows | Table, list[SourceFrame]] = {}
    for frame, voi in zip(frames, found, strict=True):
        if voi is not None:
            by_voi.setdefault(voi, []).append(frame)
    items = []
    for voi, shown in by_voi.items():
        item = _voi_item(voi)
        if len(shown) < len(frames):
            item.ReferencedImageSequence = list(referenced_frames(shown))
        items.append(item)
    return items


def referenced_frames(frames: Iterable[SourceFrame]) -> Iterable[Dataset]:
    """Refer to frames, those of one instance together (PS3.3 Table 10-3)."""
    by_instance: dict[str, Dataset] = {}
    for frame in frames:
        item = by_instance.get(frame.sop_instance_uid)
        if item is None:
            by_instance[frame.sop_instance_uid] = referenced(frame)
        elif frame.frame is not None:
            numbers = item.ReferencedFrameNumber
            several = list(numbers) if isinstance(numbers, MultiValue) else [numbers]
            item.ReferencedFrameNumber = [*several, frame.frame]
    return by_instance.values()


def _voi_item(voi: Windows | Table) -> Dataset:
    item = Dataset()
    if isinstance(voi, Table):
        item.VOILUTSequence = [_table_item(voi)]
    else:
        item.WindowCenter, item.WindowWidth = decimals(voi.centres), decimals(voi.widths)
        item.VOILUTFunction = voi.function
    return item


def _table_item(table: Table, makes: str = "") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if table.signed else "US", list(table.descriptor))
    item.add_new("LUTData", "OW", table.data)
    if makes:
        setattr(item, makes, table.makes or "US")
    return item


def _rescale(header: Dataset) -> tuple[float, float] | None:
    try:
        return float(header.RescaleSlope), float(header.RescaleIntercept)
    except UNREADABLE:
        return None


def _windows(header: Dataset) -> Windows | None:
    centres, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    function = header_text(header, "VOILUTFunction")
    function = function if function in _FUNCTIONS else LINEAR
    least = 1.0 if function == LINEAR else 1e-9
    if not centres or len(centres) != len(widths) or min(widths) < least:
        return None
    return Windows(centres=centres, widths=widths, function=function)


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the numbers of an attribute; none where it is absent or holds none."""
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return ()
        return tuple(map(float, value if isinstance(value, MultiValue) else [value]))
    except UNREADABLE:
        return ()


def _table(header: Dataset, keyword: str) -> Table | None:
    try:
        item = header[keyword].value[0]
        entries, first, bits = (int(value) for value in item.LUTDescriptor)
        data = item.LUTData
        if not isinstance(data, bytes):
            data = struct.pack(f"<{len(data)}H", *data)
        makes = str(item.get("ModalityLUTType", ""))
    except (*UNREADABLE, LookupError, struct.error):
        return None
    return Table(descriptor=(entries, first, bits), signed=first < 0, data=data, makes=makes)
