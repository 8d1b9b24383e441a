"""Segmentation: labels every voxel of a volume, and measures what bears each label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from engines.base import Array, Arrays, Session, Task, Work, analyse_series
from engines.bits import BitMask
from engines.body import Body, BodyRule, find_body
from engines.errors import InferenceError, ModelInvalidError
from engines.findings import Analysis, Outcome, Segment
from engines.header_rules import headers_of
from engines.images import BoolArray, FloatArray, Volume, VoxelArray
from engines.labelling import label_volume
from engines.manifest import (
    EnginePackage,
    Finite,
    Name,
    ParityTable,
    Positive,
    Sentence,
    Table,
    TaskSettings,
)
from engines.measuring import Tally, dice, measure, tally
from engines.plausibility import believed, segment_doubts
from engines.recipe import Recipe
from engines.refusals import Reason, SeriesRefusedError
from engines.resampling import Lattice, axial_lattice, lattice_of
from engines.segments import SegmentSettings, tidy
from engines.series import (
    Series,
    in_uptake_values,
    load_volume,
    stack_series,
)
from engines.sharing import share
from engines.suitability import unfit_grid, unfit_series
from engines.uptake import suv_factor

LEFT_OUT_SHARE: Final = 0.03

LabelArray = npt.NDArray[np.uint8]


class ModelNames(Table):
    """The model's tensors.

    `image` is float32 [slice, 1, row, column] in the unit of the volume; `valid` is float32 of the
    same shape, 1 where the patient was imaged; `labels` comes back as integers of the same shape.
    """

    image: str
    valid: str
    labels: str


class BodySettings(Table):
    """How the body is told from table, clothes and air; see `engines.body.BodyRule`.

    A model without a recipe labels nothing outside it. Voxels on the surface of the body that look
    like the segment `not_on_surface` hold a good part of room air, and are left out, of what such a
    model labels.
    """

    above: Finite
    thin_mm: Positive
    lung_above: Finite
    smallest_share: Annotated[float, Field(ge=0, lt=1)]
    not_on_surface: Name | None = None


class SegmentationSettings(TaskSettings):
    """The table `[segmentation]` of an engine package.

    `recipe` says how a net is run. Without it the model labels slices in the source's own lattice:
    values below `lowest` are no patient, whatever the header says, `fill` takes the place of what
    is no patient before the model sees it, and `slices_at_once` bounds what it is handed.
    `area_slice` names the segment on whose largest cross-section areas are measured.
    `limits` are sentences that stand beside every result.
    """

    recipe: Recipe | None = None
    model: ModelNames | None = None
    lowest: Finite | None = None
    fill: Finite | None = None
    slices_at_once: Annotated[int, Field(ge=1, le=1024)] = 8
    area_slice: Name | None = None
    body: BodySettings | None = None
    segments: Annotated[tuple[SegmentSettings, ...], Field(min_length=1)]
    limits: tuple[Sentence, ...] = ()

    @model_validator(mode="after")
    def _has_one_way(self) -> SegmentationSettings:
        direct = (self.model, self.lowest, self.fill)
        if self.recipe is None and any(item is None for item in direct):
            raise ValueError("without a recipe it needs model, lowest and fill")
        if self.recipe is not None and any(item is not None for item in direct):
            raise ValueError("a recipe takes the place of model, lowest and fill")
        if self.body is None and any(segment.inside_body for segment in self.segments):
            raise ValueError("inside_body asks for the table body")
        return self

    @model_validator(mode="after")
    def _refers_to_its_segments(self) -> SegmentationSettings:
        keys = [segment.key for segment in self.segments]
        values = [segment.value for segment in self.segments]
        if len(set(keys)) != len(keys) or len(set(values)) != len(values):
            raise ValueError("two segments share a key or a value")
        named = {s.otherwise for s in self.segments if s.otherwise}
        if self.area_slice is not None:
            named.add(self.area_slice)
        if self.body is not None and self.body.not_on_surface is not None:
            named.add(self.body.not_on_surface)
        unknown = sorted(named - set(keys))
        if unknown:
            raise ValueError(f"no segment has the key {unknown[0]!r}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """Labels uint8 [slice, row, column], 0 where there is nothing, and the body if asked for.

    `scores` is float64 [class]: the mean of what the net gave each class, where a recipe ran it.
    """

    labels: LabelArray
    body: Body | None = None
    scores: FloatArray | None = None


class Segmentation(Task):
    """Segments with volume, mean value and area; everything else stands in the package."""

    name: ClassVar[str] = "segmentation"
    settings_type: ClassVar[type[TaskSettings]] = SegmentationSettings

    def analyse(self, work: Work) -> Outcome:
        """Read the series, label it, and measure the segments."""
        return analyse_series(work, self._analyse)

    def _analyse(self, series: Series, work: Work, byte_limit: int) -> Outcome:
        wanted = work.package.manifest.suitability
        if refusal := unfit_series(series, wanted):
            return refusal
        stacked = stack_series(series)
        if refusal := unfit_grid(stacked, wanted):
            return refusal
        work.progress("decoding")
        volume = load_volume(stacked, byte_limit=byte_limit)
        if wanted.unit == "SUV":
            volume = in_uptake_values(volume, suv_factor(headers_of(stacked.series.frames)))
        settings = _settings(work.package)
        work.progress("labelling")
        labelled = _label(volume, settings, work.session)
        work.progress("measuring")
        analysis = Analysis(
            grid=volume.grid,
            sources=volume.sources,
            findings=tuple(_segments(volume, labelled.labels, settings)),
            sought=tuple(segment.type.code() for segment in settings.segments),
            limits=tuple(_limits(volume, labelled, settings)),
        )
        body = None if labelled.body is None else labelled.body.mask
        voxel_ml = _voxel_ml(lattice_of(volume.grid))
        doubts = segment_doubts(labelled.labels, voxel_ml, settings.segments, body)
        return believed(analysis, tuple(doubts))

    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Label `voxels` [slice, row, column] with `spacing` [3] in mm; return `labels`.

        `sizes` counts the voxels of each segment and `means` holds the mean value of each;
        `scores` is the mean of what the net gave each class, which tells nets apart even where
        they label nothing. Whether a volume is plausible is not asked.
        """
        settings = _settings(package)
        voxels = inputs["voxels"].astype(np.int16)
        between, rows, columns = (float(mm) for mm in inputs["spacing"])
        valid = np.ones(voxels.shape, np.bool_)
        lattice = axial_lattice(voxels.shape, (between, rows, columns))
        labelled = _labels(voxels, valid, lattice, settings, session)
        found = tally(voxels, labelled.labels)
        tallies = [found[segment.value] for segment in settings.segments]
        scores = {} if labelled.scores is None else {"scores": labelled.scores}
        return {
            **scores,
            "labels": labelled.labels,
            "sizes": np.array([item.voxels for item in tallies], dtype=np.float64),
            "means": np.array([item.mean for item in tallies], dtype=np.float64),
        }

    def disagreements(self, reference: Arrays, found: Arrays, allowed: ParityTable) -> list[str]:
        """Compare the segments by their overlap (Dice)."""
        wanted, given = reference["labels"], found["labels"]
        values = (set(np.unique(wanted)) | set(np.unique(given))) - {0}
        overlaps = {int(v): dice(wanted == v, given == v) for v in sorted(values)}
        return [
            f"segment {value} overlaps by {overlap:.4f} (Dice), {allowed.dice:g} is asked for"
            for value, overlap in overlaps.items()
            if overlap < allowed.dice
        ]


def _settings(package: EnginePackage) -> SegmentationSettings:
    if not isinstance(package.settings, SegmentationSettings):
        raise ModelInvalidError(f"{package.name}: its settings are not those of a segmentation")
    return package.settings


def _label(volume: Volume, settings: SegmentationSettings, session: Session) -> _Labelled:
    valid = volume.valid
    if settings.lowest is not None and volume.voxels.min() < settings.lowest:
        valid = valid & (volume.voxels >= settings.lowest)
    return _labels(volume.voxels, valid, lattice_of(volume.grid), settings, session)


def _labels(
    voxels: VoxelArray,
    valid: BoolArray,
    lattice: Lattice,
    settings: SegmentationSettings,
    session: Session,
) -> _Labelled:
    """Label voxels and tidy up each segment.

    Raises:
        SeriesRefusedError: no body was found.
    """
    body = None
    if settings.body is not None:
        body = find_body(voxels, valid, _body_rule(settings.body, lattice.spacing))
        if body is None:
            raise SeriesRefusedError(Reason.NO_BODY, "no connected body was found in the images")
    if settings.recipe is None:
        labelled = _direct(voxels, valid, body, settings, session)
    else:
        labels, scores = label_volume(voxels, valid, lattice, settings.recipe, session)
        labels[~valid] = 0
        labelled = _Labelled(labels=labels, body=body, scores=scores)
    tidy(labelled.labels, _voxel_ml(lattice), settings.segments)
    return labelled


def _voxel_ml(lattice: Lattice) -> float:
    return math.prod(lattice.spacing) / 1000.0


def _direct(
    voxels: VoxelArray,
    valid: BoolArray,
    body: Body | None,
    settings: SegmentationSettings,
    session: Session,
) -> _Labelled:
    """Label slices in their own lattice, within the body if the package says so."""
    inside = valid if body is None else body.mask
    labels = np.empty(voxels.shape, np.uint8)
    images = _Images(voxels.shape, settings)
    for first in range(0, len(voxels), settings.slices_at_once):
        part = slice(first, first + settings.slices_at_once)
        labels[part] = _infer(images.of(voxels[part], valid[part]), settings, session)

    def confine(slices: slice) -> None:
        for first in range(slices.start, slices.stop, settings.slices_at_once):
            part = slice(first, min(first + settings.slices_at_once, slices.stop))
            labels[part] *= inside[part].view(np.uint8)
            if body is not None:
                _bare_surface(labels[part], inside[part], valid[part], settings)

    share(len(labels), confine)
    return _Labelled(labels=labels, body=body)


class _Images:
    """Slices as a model takes them; the arrays for one part of a volume serve all its parts."""

    def __init__(self, shape: tuple[int, ...], settings: SegmentationSettings) -> None:
        if settings.model is None or settings.fill is None:
            raise ModelInvalidError("the package names no inputs and outputs of the model")
        self._names = settings.model
        self._fill = settings.fill
        room = (min(settings.slices_at_once, shape[0]), 1, *shape[1:])
        self._image = np.empty(room, np.float32)
        self._all_valid = np.ones(room, np.float32)

    def of(self, voxels: VoxelArray, valid: BoolArray) -> Arrays:
        """Return some slices by the names of the model's inputs, until the next call."""
        image = self._image[: len(voxels)]
        np.copyto(image[:, 0], voxels)
        if valid.all():
            return {self._names.image: image, self._names.valid: self._all_valid[: len(voxels)]}
        np.copyto(image[:, 0], self._fill, where=~valid)
        return {self._names.image: image, self._names.valid: valid.astype(np.float32)[:, None]}


def _body_rule(settings: BodySettings, spacing: tuple[float, float, float]) -> BodyRule:
    rows, columns = (max(1, round(settings.thin_mm / 2 / mm)) for mm in spacing[1:])
    return BodyRule(
        above=settings.above,
        thin=(rows, columns),
        lung_above=settings.lung_above,
        smallest_share=settings.smallest_share,
    )


def _infer(images: Arrays, settings: SegmentationSettings, session: Session) -> LabelArray:
    names = settings.model
    if names is None:
        raise ModelInvalidError("the package names no inputs and outputs of the model")
    outputs = session.run(images)
    if names.labels not in outputs:
        raise ModelInvalidError(f"the model has no output {names.labels!r}")
    found: Array = outputs[names.labels]
    shape = images[names.image].shape
    if found.shape != shape or found.dtype.kind not in "iu":
        raise InferenceError(f"the model gave {found.dtype} {found.shape} for an image of {shape}")
    return found[:, 0].astype(np.uint8, copy=False)


def _bare_surface(
    labels: LabelArray, inside: BoolArray, valid: BoolArray, settings: SegmentationSettings
) -> None:
    """Apply `not_on_surface` in place."""
    if settings.body is None or settings.body.not_on_surface is None:
        return
    values = {segment.key: segment.value for segment in settings.segments}
    body = BitMask.of(inside)
    beyond = ~body if valid.all() else ~body & BitMask.of(valid)
    at = (beyond.grown(1, 1) & body).indices()
    flat = labels.reshape(-1)
    flat[at[flat[at] == values[settings.body.not_on_surface]]] = 0


def _segments(
    volume: Volume, labels: LabelArray, settings: SegmentationSettings
) -> Iterator[Segment]:
    tallies = tally(volume.voxels, labels)
    slice_index = _area_slice(tallies, settings)
    for segment in settings.segments:
        found = tallies[segment.value]
        if not found.voxels:
            continue
        yield Segment(
            key=segment.key,
            label=segment.label,
            category=segment.category.code(),
            type=segment.type.code(),
            region=segment.region.code() if segment.region else None,
            laterality=segment.laterality.code() if segment.laterality else None,
            colour=segment.colour,
            labels=labels,
            value=segment.value,
            counted=found.by_slice,
            measurements=tuple(measure(volume, found, slice_index)),
        )


def _area_slice(tallies: Sequence[Tally], settings: SegmentationSettings) -> int | None:
    """Return the slice on which the named segment has its largest cross-section."""
    if settings.area_slice is None:
        return None
    value = next(s.value for s in settings.segments if s.key == settings.area_slice)
    return int(np.argmax(tallies[value].by_slice))


def _limits(volume: Volume, labelled: _Labelled, settings: SegmentationSettings) -> Iterator[str]:
    yield from settings.limits
    yield from volume.notes
    slices = len(volume.voxels)
    if slices == 1:
        yield "The series has a single slice: no volumes are given."
    if labelled.body is None:
        return
    if labelled.body.cut_slices:
        yield (
            f"The body reaches the edge of the field of view on {labelled.body.cut_slices} of"
            f" {slices} slices: what lies beyond is not counted."
        )
    if labelled.body.left_out_share > LEFT_OUT_SHARE:
        yield (
            "Parts that do not hang together with the body (arms, or the table) were left out; the"
            f" largest has {100 * labelled.body.left_out_share:.0f} % of the size of the body."
        )
