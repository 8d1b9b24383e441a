"""What an engine asks of whole headers: attributes, calibration, uptake. Reads no pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from engines.datasets import READ_ERRORS, kind_of, quiet, read_dataset
from engines.headers import GROUPS, FrameHeader
from engines.manifest import AttributeRule, SuitabilityTable
from engines.refusals import Reason, SeriesRefusedError
from engines.uptake import suv_factor

BYTE_LIMIT: Final = 1 << 30
REASONS: Final = {
    "Laterality": Reason.WRONG_LATERALITY,
    "ImageLaterality": Reason.WRONG_LATERALITY,
    "FrameLaterality": Reason.WRONG_LATERALITY,
    "ViewPosition": Reason.WRONG_VIEW,
    "PatientOrientation": Reason.WRONG_VIEW,
    "ContrastBolusAgent": Reason.WRONG_PHASE,
    "ContrastBolusStartTime": Reason.WRONG_PHASE,
    "ContrastBolusIngredient": Reason.WRONG_PHASE,
    "CardiacCyclePosition": Reason.WRONG_PHASE,
    "RespiratoryCyclePosition": Reason.WRONG_PHASE,
    "AcquisitionContrast": Reason.WRONG_PHASE,
}
"""The reason for a wrong value; ATTRIBUTE for others."""
TISSUE_2D, TISSUE, CENTIMETRES = 1, 1, 3
"""Region Spatial Format, Region Data Type, Physical Units (PS3.3 C.8.5.5.1)."""


def header_rule_faults(
    frames: Sequence[FrameHeader], wanted: SuitabilityTable
) -> Iterator[tuple[Reason, str]]:
    """Yield what headers lack that are looked at as a whole; reads none if nothing is asked."""
    if not (wanted.attributes or wanted.calibration or wanted.unit == "SUV"):
        return
    try:
        with quiet():
            yield from _faults(headers_of(frames), wanted)
    except SeriesRefusedError as refused:
        yield refused.reason, refused.detail
    except READ_ERRORS as error:
        yield (
            Reason.UNREADABLE,
            f"an attribute of an image has no valid value ({kind_of(error)})",
        )


def headers_of(frames: Sequence[FrameHeader]) -> list[Dataset]:
    """Read the header of each file once.

    Raises:
        SeriesRefusedError: one cannot be read.
    """
    files = dict.fromkeys(frame.file for frame in frames)
    return [read_dataset(file, byte_limit=BYTE_LIMIT, with_pixels=False) for file in files]


def _faults(images: Sequence[Dataset], wanted: SuitabilityTable) -> Iterator[tuple[Reason, str]]:
    for rule in wanted.attributes:
        wrong = [found for image in images if (found := _broken(image, rule)) is not None]
        if wrong:
            reason = REASONS.get(rule.keyword, Reason.WRONG_ATTRIBUTE)
            yield reason, f"{rule.keyword} is {wrong[0]} in {len(wrong)} of {len(images)} images"
    if wanted.calibration == "ultrasound":
        count = sum(not any(_measures(r) for r in _items(image)) for image in images)
        if count:
            yield (
                Reason.WRONG_UNIT,
                f"{count} of {len(images)} images have no region of tissue with a pixel size",
            )
    if wanted.unit == "SUV":
        suv_factor(images)


def _broken(image: Dataset, rule: AttributeRule) -> str | None:
    """Say what an attribute is that breaks a rule, in words that quote no more than a code."""
    values = _values(image, rule.keyword)
    if not values:
        return "absent" if rule.present else None
    if rule.present is False:
        return "present"
    allowed = {value.upper() for value in rule.allowed}
    if not allowed or allowed & {value.upper() for value in values}:
        return None
    return "another value than " + ", ".join(rule.allowed)


def _values(image: Dataset, keyword: str) -> list[str]:
    """Return the values of an attribute of an image, or of its functional groups."""
    for place in _places(image):
        value = place.get(keyword)
        items = value if isinstance(value, MultiValue | list) else [value]
        found = [str(item).strip() for item in items if item is not None and str(item).strip()]
        if found:
            return found
    return []


def _places(image: Dataset) -> Iterator[Dataset]:
    yield image
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for item in (image.get(groups) or [])[:1]:
            for name in (*GROUPS, "FrameAnatomySequence"):
                yield from (item.get(name) or [])[:1]


def _items(image: Dataset) -> Sequence[Dataset]:
    return image.get("SequenceOfUltrasoundRegions") or []


def _measures(region: Dataset) -> bool:
    """Say whether a region is of tissue in two dimensions, with pixels of a known size."""
    kind = (region.get("RegionSpatialFormat"), region.get("RegionDataType"))
    units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
    deltas = (region.get("PhysicalDeltaX") or 0, region.get("PhysicalDeltaY") or 0)
    return kind == (TISSUE_2D, TISSUE) and units == (CENTIMETRES, CENTIMETRES) and min(deltas) > 0
