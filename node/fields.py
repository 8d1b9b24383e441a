"""Names of attributes as rules write them: keyword, tag, nested path, private with its creator.

Modality                                            a keyword (PS3.6)
0008,0060                                           a tag
RequestAttributesSequence.ScheduledProcedureStepID  inside a sequence, all items
RequestAttributesSequence[0].RequestedProcedureID   inside its first item
0043,GEMS_PARM_01,27                                private: group, creator, element offset
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

TAG: Final = re.compile(r"([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})")
PRIVATE: Final = re.compile(r"([0-9A-Fa-f]{3}[13579bdfBDF]),([^,]+),([0-9A-Fa-f]{2})")
ITEM: Final = re.compile(r"(.*)\[([0-9]+)\]")
LONGEST: Final = 500


class FieldError(Exception):
    """The text names no attribute; the message says what is wrong, and what may be meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One attribute on the way. `creator` makes it private; `item` picks one item, from 0."""

    tag: int
    creator: str = ""
    item: int | None = None


@dataclass(frozen=True, slots=True)
class FieldPath:
    """The attributes from the data set down to the one that is meant."""

    steps: tuple[Step, ...]


def parse_field(text: str) -> FieldPath:
    """Read a field path.

    Raises:
        FieldError: naming the part that is wrong.
    """
    if not text or len(text) > LONGEST:
        raise FieldError("a field is a keyword, a tag such as 0008,0060, or a path of them")
    return FieldPath(tuple(_step(part) for part in text.split(".")))


def _step(text: str) -> Step:
    item = None
    if match := ITEM.fullmatch(text):
        text, item = match.group(1), int(match.group(2))
    if match := PRIVATE.fullmatch(text):
        group, creator, element = match.groups()
        return Step(tag=int(group, 16) << 16 | int(element, 16), creator=creator, item=item)
    if match := TAG.fullmatch(text):
        return Step(tag=int(match.group(1) + match.group(2), 16), item=item)
    tag = tag_for_keyword(text)
    if tag is None:
        raise FieldError(f"{text!r} is no DICOM keyword{_hint(text)}")
    return Step(tag=tag, item=item)


def _hint(text: str) -> str:
    keywords = [entry[4] for entry in DicomDictionary.values()]
    near = difflib.get_close_matches(text, keywords, n=2, cutoff=0.7)
    return f" (near: {', '.join(near)})" if near else ""
