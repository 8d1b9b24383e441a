"""Text for people and for attributes: clean, short enough, and the same every time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from pydicom.valuerep import format_number_as_ds

LONG_STRING: Final = 64
SHORT_STRING: Final = 16
WHOLE_NUMBERS_FROM: Final = 1000.0
SIX_DIGITS: Final = 1e6
LARGEST_WHOLE: Final = 1e15  # 16 characters with the sign
_KEPT: Final = "\t\n\f\r"


def clean(text: str, limit: int = LONG_STRING) -> str:
    """Make one line of text out of anything: for headers' text that goes into our own wording.

    Control and formatting characters go (the latter can turn the direction of writing), white
    space becomes one blank, and a backslash, which separates values (PS3.5 6.2), a slash.
    """
    visible = "".join(" " if c.isspace() else c for c in text if c.isspace() or _is_visible(c))
    folded = re.sub(r" +", " ", visible.replace("\\", "/")).strip()
    return folded if len(folded) <= limit else folded[: limit - 3].rstrip() + "..."


def without_controls(text: str, *, lines: bool) -> str:
    """Remove what no DICOM string may hold (PS3.5 6.1.3), and change nothing else.

    `lines` keeps the tab, line feed, form feed and carriage return of ST, LT and UT.
    """
    return "".join(
        c for c in text if unicodedata.category(c) not in ("Cc", "Cs") or (lines and c in _KEPT)
    )


def number(value: float) -> str:
    """Write a number for people: four significant digits, but never less than whole numbers."""
    if abs(value) >= WHOLE_NUMBERS_FROM:
        return f"{value:.0f}"
    return f"{value:.4g}"


def decimal_string(value: float) -> str:
    """Write a number as a DS that people can read: six significant digits (PS3.5 6.2)."""
    return f"{value:.0f}" if SIX_DIGITS <= abs(value) < LARGEST_WHOLE else f"{value:.6g}"


def decimals(values: Iterable[float]) -> list[str]:
    """Write numbers as DS, as exactly as its 16 characters allow (PS3.5 6.2)."""
    return [format_number_as_ds(float(value)) for value in values]


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: "1 image", "12 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] != "C"
