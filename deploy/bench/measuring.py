"""Runs, and ratios of runs that stand side by side: a median with its quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

OURS: Final = "wetread"
Item = TypeVar("Item")


class Part(StrEnum):
    """Who sends: our fast sender to peers set up well, or dcmtk's storescu to peers as shipped."""

    FAST = "fast-sender"
    AS_SHIPPED = "as-shipped"


class Measure(StrEnum):
    """What is compared."""

    RATE = "images/s"
    CPU = "CPU/image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One server that took `count` images over some associations, once.

    `seconds` lie between the first byte and the last response; `cpu_seconds` are those of all the
    server's processes from before the association until it was idle again; `peak_bytes` is the sum
    of their largest resident sets, pages they share counted in each, and `rise_bytes` what it is
    above that before the run; None: not measured.
    """

    part: Part
    server: str
    kind: str
    associations: int
    repetition: int
    count: int
    acknowledged: int
    arrived: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    rise_bytes: int | None

    @property
    def lost(self) -> int:
        """How many images were sent and are not there."""
        return self.count - self.arrived

    def value(self, measure: Measure) -> float:
        """Return images per second, or CPU seconds per image."""
        if measure is Measure.RATE:
            return self.acknowledged / self.seconds
        return self.cpu_seconds / self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison; without `associations`: with as many as the other side has."""

    server: str
    associations: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A median, its quartiles, and of how many values."""

    median: float
    first_quartile: float
    third_quartile: float
    pairs: int

    def __str__(self) -> str:
        """Return `0.61 (0.53..0.68)`."""
        return f"{self.median:.2f} ({self.first_quartile:.2f}..{self.third_quartile:.2f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Ours divided by a peer's; `associations` None: all of them together."""

    part: Part
    kind: str
    associations: int | None
    peer: str
    measure: Measure
    spread: Spread


def paired(
    runs: Iterable[Run], measure: Measure, part: Part, kind: str, sides: tuple[Side, Side]
) -> Spread | None:
    """Divide each run of the first side by its neighbour of the second, in the same repetition.

    None: there are no such pairs. A neighbour too short for the clock's ticks makes no pair.
    """
    ours, theirs = sides
    alike = [run for run in runs if run.part is part and run.kind == kind]
    by_place = {(run.server, run.associations, run.repetition): run for run in alike}
    values = []
    for run in alike:
        if run.server != ours.server or ours.associations not in {None, run.associations}:
            continue
        associations = theirs.associations or run.associations
        neighbour = by_place.get((theirs.server, associations, run.repetition))
        if neighbour is not None and neighbour.value(measure) > 0:
            values.append(run.value(measure) / neighbour.value(measure))
    return spread(values)


def spread(values: Sequence[float]) -> Spread | None:
    """Return the median and the quartiles of some values; None for none."""
    if not values:
        return None
    first = third = values[0]
    if len(values) > 1:
        first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(
        median=statistics.median(values),
        first_quartile=first,
        third_quartile=third,
        pairs=len(values),
    )


def all_ratios(runs: Sequence[Run]) -> list[Ratio]:
    """Return ours to every peer's, by kind and number of associations, and all together."""
    return [
        Ratio(
            part=part,
            kind=kind,
            associations=associations,
            peer=peer,
            measure=measure,
            spread=found,
        )
        for part, kind in unique((run.part, run.kind) for run in runs)
        for associations in (*unique(run.associations for run in runs), None)
        for peer in unique(run.server for run in runs)
        for measure in Measure
        if peer != OURS
        and (
            found := paired(
                runs,
                measure,
                part,
                kind,
                (Side(server=OURS, associations=associations), Side(server=peer)),
            )
        )
    ]


def unique(items: Iterable[Item]) -> list[Item]:
    """Return what is there, in order of first appearance."""
    return list(dict.fromkeys(items))
