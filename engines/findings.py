"""What engines find: coded, frozen, and free of any DICOM encoding."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engines.images import FloatArray, Grid, SourceFrame

MaskArray: TypeAlias = npt.NDArray[np.bool_]
LabelArray: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8): value, coding scheme designator, meaning as spelt in PS3.16."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its coded name and UCUM unit.

    `slice_index` is set when the number belongs to one slice of the grid (an area on that slice).
    `derivation` says how it was made where the name does not, e.g. (373098007, SCT, "Mean").
    """

    name: Code
    value: float
    unit: Code
    derivation: Code | None = None
    slice_index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A region on the source grid with what was measured in it.

    It is where `labels`, uint8 [slice, row, column] on the analysis's grid, voxel for voxel, are
    `value`: the segments of an analysis share one array, and no mask of each has to be kept.
    `by_slice` counts its voxels on each slice: as `counted`, where that is handed in. `key` is
    stable over re-runs of an engine: tracking identifiers are made from it. `colour` is sRGB,
    0-255.
    """

    key: str
    label: str
    category: Code
    type: Code
    region: Code | None = None
    laterality: Code | None = None
    colour: tuple[int, int, int]
    labels: LabelArray
    value: int = 1
    measurements: tuple[Measurement, ...] = ()
    counted: InitVar[npt.NDArray[np.int64] | None] = None
    by_slice: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self, counted: npt.NDArray[np.int64] | None) -> None:
        if counted is not None:
            object.__setattr__(self, "by_slice", counted)
            return
        counts = [np.count_nonzero(plane == self.value) for plane in self.labels]
        object.__setattr__(self, "by_slice", np.array(counts, np.int64))

    @property
    def mask(self) -> MaskArray:
        """Which voxels belong to it: bool [slice, row, column], made anew at each call."""
        return np.asarray(self.labels == self.value)

    def plane(self, index: int) -> MaskArray:
        """Return the mask on one slice: bool [row, column]."""
        return np.asarray(self.labels[index] == self.value)


Finding: TypeAlias = Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """A concept that an engine found in one image, with how sure it is of it.

    `key` is stable over re-runs of an engine. `image` is the index of the image among the sources
    of the analysis. `measurements` hold the certainty of the finding, and may hold more.
    """

    key: str
    label: str
    type: Code
    image: int
    region: Code | None = None
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The engine looked: `findings` may be empty, which means *analysed, nothing found*.

    `sources` are the frames the grid was built from, one per slice, in grid order. `sought` names
    what the engine looks for, so that "nothing found" can say what was not found. `limits` are
    sentences that a reader must see beside the findings (single slice, truncated field of view).
    """

    grid: Grid
    sources: tuple[SourceFrame, ...]
    findings: tuple[Finding, ...]
    sought: tuple[Code, ...]
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAnalysis:
    """The engine looked at images as such, each by itself, wherever they lie in the patient.

    `findings` may be empty, which means *analysed, nothing found*. `sources` are the images that
    were looked at, and `sought` names what was looked for in each. `limits` as in `Analysis`.
    """

    sources: tuple[SourceFrame, ...]
    findings: tuple[Classification, ...]
    sought: tuple[Code, ...]
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """Many things of one kind on a slide, each outlined, and what is measured of all of them.

    `polygons` are float64 [corner, (column, row)], not closed, in pixels of the total pixel matrix
    of the slide, whose top left corner is 0, 0; `areas` has one for each, float64 in square
    micrometres. `key` and `colour` as in `Segment`.
    """

    key: str
    label: str
    category: Code
    type: Code
    colour: tuple[int, int, int]
    polygons: tuple[FloatArray, ...]
    areas: FloatArray
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideAnalysis:
    """The engine looked at a slide: `sources` has the one image that outlines lie on.

    `findings`, `sought` and `limits` as in `Analysis`.
    """

    sources: tuple[SourceFrame, ...]
    findings: tuple[Outlines, ...]
    sought: tuple[Code, ...]
    limits: tuple[str, ...] = ()


ReadOutcome: TypeAlias = Analysis | ImageAnalysis | SlideAnalysis
"""The engine looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The engine could not look: *not analysed*, with a coded reason (invariant 15).

    `detail` is one sentence with numbers and no patient data: "3 slices missing between z = -40.0
    mm and -30.0 mm". `sources` are the instances that were looked at; empty if none could be read.
    `held` is what the engine made of them where that cannot be true: nobody is given it before a
    person has seen it.
    """

    reason: Code
    detail: str
    sources: tuple[SourceFrame, ...] = ()
    held: ReadOutcome | None = None


Outcome: TypeAlias = ReadOutcome | Refusal
