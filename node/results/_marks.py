"""What is marked on which image: outlines and words for presentation states and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from engines.findings import (
    Analysis,
    Classification,
    ImageAnalysis,
    Outlines,
    Segment,
    SlideAnalysis,
)
from node.interfaces import ResultContext, ResultError
from node.results import _wording as wording
from node.results._contours import Points, contours_of
from node.results._objects import PENDING
from node.results._segments import largest_slice
from node.results._text import clean

Finding: TypeAlias = Segment | Classification | Outlines
Found: TypeAlias = Analysis | ImageAnalysis | SlideAnalysis
SMALL: Final = 12.0
"""Pixels: fewer are a speck, of which a mask may have thousands. Segmentations have them all."""
NO_COLOUR: Final = (255, 204, 0)
"""For what has no outline and so no colour of its own."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One finding on one image, the source of that index.

    `words` are its sentence on the image where it is largest, and empty on others.
    """

    finding: Finding
    index: int
    words: str

    @property
    def colour(self) -> tuple[int, int, int]:
        """Its colour in sRGB, 0-255."""
        return NO_COLOUR if isinstance(self.finding, Classification) else self.finding.colour

    def contours(self) -> tuple[Points, ...]:
        """Make its contours: float64 [corner, (column, row)] in pixels, not closed.

        Place 0, 0 is the top left corner of the image. None where the finding has no outline. Those
        of a segment that enclose next to nothing are left out, but for the largest on the image.
        """
        if isinstance(self.finding, Segment):
            found = contours_of(self.finding.plane(self.index))
            areas = [_area_of(contour) for contour in found]
            least = min(SMALL, max(areas, default=0.0))
            return tuple(c for c, area in zip(found, areas, strict=True) if area >= least)
        return self.finding.polygons if isinstance(self.finding, Outlines) else ()


Marks: TypeAlias = tuple[Mark, ...]


def found_of(context: ResultContext) -> Found:
    """Return the outcome, which is findings or their absence.

    Raises:
        ResultError: it is a refusal, or findings share a key.
    """
    outcome = context.outcome
    if not isinstance(outcome, Analysis | ImageAnalysis | SlideAnalysis):
        raise ResultError("a refusal has nothing to mark")
    keys = [_identity_of(finding) for finding in outcome.findings]
    if len(set(keys)) != len(keys):
        raise ResultError("two findings share a key: they could not be told apart (OBJ-17)")
    return outcome


def marked_images(found: Found) -> list[int]:
    """Return the indices of the sources on which a finding is, ascending."""
    if isinstance(found, Analysis):
        if not found.findings:
            return []
        counts = np.sum([segment.by_slice > 0 for segment in found.findings], axis=0)
        return [int(index) for index in np.flatnonzero(counts)]
    return sorted({_image_of(finding) for finding in found.findings})


def key_images(found: Found) -> list[int]:
    """Return the indices of the sources where each finding is largest, ascending."""
    if isinstance(found, Analysis):
        return sorted({largest_slice(item) for item in found.findings if item.by_slice.any()})
    return marked_images(found)


def chosen_images(found: Found, limit: int) -> list[int]:
    """Return at most so many marked images: the key images, and others spread over the rest."""
    marked, key = marked_images(found), key_images(found)
    if len(marked) <= limit:
        return marked
    if len(key) >= limit:
        return spread(key, limit)
    others = [index for index in marked if index not in set(key)]
    return sorted([*key, *spread(others, limit - len(key))])


def statement(context: ResultContext) -> str:
    """Say in one line whose result is drawn, and that nobody has verified it."""
    engine = context.engine
    return clean(f"{PENDING} - {engine.name} {engine.version} - {engine.clinical_use}", 200)


class Marker:
    """Tells what is marked on an image, with words made once."""

    def __init__(self, context: ResultContext) -> None:
        """Word every finding as the text report does."""
        self.found = found_of(context)
        self._sentences = wording.findings(self.found, context)[: len(self.found.findings)]

    def on(self, index: int) -> Marks:
        """Return the marks on a source, in the order of the findings."""
        findings: tuple[Finding, ...] = self.found.findings
        pairs = zip(findings, self._sentences, strict=True)
        return tuple(
            Mark(finding, index, sentence if index == _largest(finding) else "")
            for finding, sentence in pairs
            if _is_on(finding, index)
        )


def _area_of(contour: Points) -> float:
    """Return what a contour along pixel edges encloses: the sum over its edges along rows."""
    across, down = contour[:, 0], contour[:, 1]
    return abs(float(np.dot(across[1::2] - across[::2], down[::2])))


def _is_on(finding: Finding, index: int) -> bool:
    if isinstance(finding, Segment):
        return bool(finding.by_slice[index])
    return _image_of(finding) == index


def _largest(finding: Finding) -> int:
    return largest_slice(finding) if isinstance(finding, Segment) else _image_of(finding)


def _image_of(finding: Classification | Outlines) -> int:
    return finding.image if isinstance(finding, Classification) else 0


def _identity_of(finding: Finding) -> tuple[str, int]:
    """Name a finding: of classifications, each image may have one of the same key."""
    if isinstance(finding, Segment):
        return finding.key, 0
    return finding.key, _image_of(finding)


def spread(indices: Sequence[int], limit: int) -> list[int]:
    """Choose so many of them, evenly, the first and the last among them."""
    if len(indices) <= limit:
        return list(indices)
    return [indices[int(place)] for place in np.linspace(0, len(indices) - 1, limit).round()]
