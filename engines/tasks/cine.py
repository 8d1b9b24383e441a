"""Cine: outlines a cavity at every phase of its beat, and measures how much of it is ejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from engines.base import Arrays, Session, Task, Work, analyse_series
from engines.errors import ModelInvalidError
from engines.findings import Analysis, Code, Measurement, Outcome, Segment
from engines.images import BoolArray, Grid, SourceFrame, Vector, Volume
from engines.labelling import label_volume
from engines.manifest import (
    CodedConcept,
    EnginePackage,
    Finite,
    ParityTable,
    Sentence,
    TaskSettings,
)
from engines.measuring import MILLILITRE, dice
from engines.phases import phases_of
from engines.plausibility import believed, place_doubts, volume_doubts
from engines.recipe import Recipe
from engines.refusals import Reason, SeriesRefusedError
from engines.resampling import Labels, axial_lattice, lattice_of
from engines.segments import SegmentSettings, tidy
from engines.series import Series, load_volume, stack_series
from engines.suitability import unfit_grid, unfit_series

PERCENT: Final = Code("%", "UCUM", "Percent")


class CineSettings(TaskSettings):
    """The table `[cine]`.

    The net of `recipe` is run on every phase by itself, and `cavity` says what it labels; the
    codes of the three values are the package's. `end_diastole` is the `first` phase of the beat,
    or the one with the `largest` cavity; end systole is the other one with the smallest cavity.
    An ejection fraction outside `plausible_percent`, a volume at end diastole outside the cavity's
    `plausible_ml`, or a cavity that cannot lie so, cannot be true: the result is held back.
    """

    recipe: Recipe
    cavity: SegmentSettings
    end_diastolic_volume: CodedConcept
    end_systolic_volume: CodedConcept
    ejection_fraction: CodedConcept
    end_diastole: Literal["first", "largest"] = "first"
    min_phases: Annotated[int, Field(ge=2, le=256)] = 2
    plausible_percent: tuple[Finite, Finite]
    limits: tuple[Sentence, ...] = ()

    @model_validator(mode="after")
    def _plausible_is_a_range(self) -> CineSettings:
        if self.plausible_percent[0] > self.plausible_percent[1]:
            raise ValueError("plausible_percent: the first is above the second")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phase:
    """One phase: its slices, and where the cavity is, bool [slice, row, column]."""

    volume: Volume
    mask: BoolArray

    @property
    def millilitres(self) -> float:
        """Return the volume of the cavity."""
        return int(np.count_nonzero(self.mask)) * (self.volume.grid.voxel_volume_ml or 0.0)


class Cine(Task):
    """A cavity at end diastole and end systole, its volumes and its ejection fraction."""

    name: ClassVar[str] = "cine"
    settings_type: ClassVar[type[TaskSettings]] = CineSettings

    def analyse(self, work: Work) -> Outcome:
        """Part the series into phases, outline the cavity in each, and measure two of them."""
        return analyse_series(work, self._analyse)

    def _analyse(self, series: Series, work: Work, byte_limit: int) -> Outcome:
        wanted = work.package.manifest.suitability
        if refusal := unfit_series(series, wanted):
            return refusal
        settings = _settings(work.package)
        stacks = [stack_series(part) for part in phases_of(series, settings.min_phases)]
        for stacked in stacks:
            if refusal := unfit_grid(stacked, wanted):
                return refusal
        phases = []
        for stacked in stacks:
            work.progress("decoding")
            volume = load_volume(stacked, byte_limit=byte_limit)
            if volume.grid.voxel_volume_ml is None:
                raise SeriesRefusedError(Reason.TOO_FEW_SLICES, "a phase has a single slice")
            work.progress("labelling")
            phases.append(_outlined(volume, settings, work.session))
        work.progress("measuring")
        return _measured(phases, series, settings)

    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Label `voxels` [slice, row, column] with `spacing` [3] in mm as one phase."""
        settings = _settings(package)
        voxels = inputs["voxels"].astype(np.int16)
        between, rows, columns = (float(mm) for mm in inputs["spacing"])
        lattice = axial_lattice(voxels.shape, (between, rows, columns))
        valid = np.ones(voxels.shape, np.bool_)
        labels, scores = label_volume(voxels, valid, lattice, settings.recipe, session)
        tidy(labels, between * rows * columns / 1000, [settings.cavity])
        return {"labels": labels, "scores": scores}

    def disagreements(self, reference: Arrays, found: Arrays, allowed: ParityTable) -> list[str]:
        """Compare the cavities by their overlap (Dice)."""
        overlap = dice(reference["labels"] != 0, found["labels"] != 0)
        if overlap >= allowed.dice:
            return []
        return [f"the cavity overlaps by {overlap:.4f} (Dice), {allowed.dice:g} is asked for"]


def _settings(package: EnginePackage) -> CineSettings:
    if not isinstance(package.settings, CineSettings):
        raise ModelInvalidError(f"{package.name}: its settings are not those of a cine task")
    return package.settings


def _outlined(volume: Volume, settings: CineSettings, session: Session) -> _Phase:
    lattice = lattice_of(volume.grid)
    labels: Labels
    labels, _ = label_volume(volume.voxels, volume.valid, lattice, settings.recipe, session)
    labels[~volume.valid] = 0
    tidy(labels, volume.grid.voxel_volume_ml or 0.0, [settings.cavity])
    return _Phase(volume=volume, mask=labels == settings.cavity.value)


def _measured(phases: Sequence[_Phase], series: Series, settings: CineSettings) -> Outcome:
    """Choose the two phases, and tell of both; hold back what cannot be.

    Raises:
        SeriesRefusedError: there is no cavity.
    """
    sizes = [phase.millilitres for phase in phases]
    first = 0 if settings.end_diastole == "first" else int(np.argmax(sizes))
    last = min((index for index in range(len(phases)) if index != first), key=sizes.__getitem__)
    diastole, systole = phases[first], phases[last]
    if not diastole.millilitres:
        raise SeriesRefusedError(Reason.IMPLAUSIBLE, "no cavity was found at end diastole")
    fraction = 100 * (1 - systole.millilitres / diastole.millilitres)
    grid, sources = _both(diastole.volume, systole.volume)
    at_diastole = (
        Measurement(
            name=settings.end_diastolic_volume.code(), value=diastole.millilitres, unit=MILLILITRE
        ),
        Measurement(name=settings.ejection_fraction.code(), value=fraction, unit=PERCENT),
    )
    at_systole = Measurement(
        name=settings.end_systolic_volume.code(), value=systole.millilitres, unit=MILLILITRE
    )
    order = _order(diastole.volume, systole.volume)
    labels = np.concatenate([diastole.mask * np.uint8(1), systole.mask * np.uint8(2)])[order]
    analysis = Analysis(
        grid=grid,
        sources=sources,
        findings=(
            _segment(settings.cavity, "end-diastole", labels, 1, at_diastole),
            *_if_any(_segment(settings.cavity, "end-systole", labels, 2, (at_systole,))),
        ),
        sought=(settings.cavity.type.code(),),
        limits=(
            *settings.limits,
            *series.notes,
            f"Of {len(phases)} phases number {first + 1} is taken as end diastole and number"
            f" {last + 1} as end systole.",
        ),
    )
    return believed(analysis, tuple(_doubts(diastole, systole, fraction, settings)))


def _doubts(
    diastole: _Phase, systole: _Phase, fraction: float, settings: CineSettings
) -> Iterator[str]:
    yield from volume_doubts(settings.cavity, diastole.millilitres)
    for phase in (diastole, systole):
        yield from place_doubts(settings.cavity, phase.mask.view(np.uint8), 1)
    low, high = settings.plausible_percent
    if not low <= fraction <= high:
        yield (
            f"the ejection fraction would be {fraction:.1f} % ({diastole.millilitres:.0f} ml at end"
            f" diastole, {systole.millilitres:.0f} ml at end systole);"
            f" {low:g} to {high:g} are plausible"
        )


def _order(one: Volume, other: Volume) -> list[int]:
    """Return how the slices of two phases lie on each other, those of the first one first."""
    positions = np.array([*one.grid.positions, *other.grid.positions])
    along = (positions @ np.array(one.grid.normal)).round(2)
    return [int(index) for index in np.argsort(along, kind="stable")]


def _both(one: Volume, other: Volume) -> tuple[Grid, tuple[SourceFrame, ...]]:
    """Return one grid with the slices of two phases; a place may bear a slice of each."""
    order = _order(one, other)
    positions: list[Vector] = [*one.grid.positions, *other.grid.positions]
    sources = [*one.sources, *other.sources]
    grid = Grid(
        shape=(len(order), *one.grid.shape[1:]),
        positions=tuple(positions[index] for index in order),
        row_direction=one.grid.row_direction,
        column_direction=one.grid.column_direction,
        spacing=one.grid.spacing,
        slice_thickness=one.grid.slice_thickness,
        frame_of_reference_uid=one.grid.frame_of_reference_uid,
        regular=False,
    )
    return grid, tuple(sources[index] for index in order)


def _segment(
    cavity: SegmentSettings,
    when: str,
    labels: Labels,
    value: int,
    measurements: tuple[Measurement, ...],
) -> Segment:
    return Segment(
        key=f"{cavity.key}-{when}",
        label=f"{cavity.label}, {when.replace('-', ' ')}",
        category=cavity.category.code(),
        type=cavity.type.code(),
        region=cavity.region.code() if cavity.region else None,
        laterality=cavity.laterality.code() if cavity.laterality else None,
        colour=cavity.colour,
        labels=labels,
        value=value,
        measurements=measurements,
    )


def _if_any(segment: Segment) -> Iterator[Segment]:
    if segment.by_slice.any():
        yield segment
