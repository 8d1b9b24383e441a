"""What the node is to reach against its peers, and whether it did. Told, never enforced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from measuring import OURS, Measure, Part, Run, Side, Spread, paired, unique


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound on the median ratio of two sides: not below it for rates, not above it for CPU."""

    measure: Measure
    kind: str
    sides: tuple[Side, Side]
    bound: float
    part: Part = Part.FAST

    @property
    def text(self) -> str:
        """The goal in words."""
        sign = ">=" if self.measure is Measure.RATE else "<="
        ours, theirs = (_worded(side) for side in self.sides)
        who = "from stock storescu, " if self.part is Part.AS_SHIPPED else ""
        return f"{self.kind.upper()}: {who}{self.measure}, {ours} {sign} {self.bound:g} x {theirs}"

    def met(self, measured: Spread) -> bool:
        """Say whether a median is within the bound."""
        if self.measure is Measure.RATE:
            return measured.median >= self.bound
        return measured.median <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal, what was measured, and whether it is met."""

    goal: str
    measured: Spread
    met: bool


def judge(runs: Sequence[Run], durability: str) -> list[Verdict]:
    """Return a verdict on every goal that these runs say something about."""
    verdicts = []
    for goal in _goals(unique(run.kind for run in runs), durability):
        measured = paired(runs, goal.measure, goal.part, goal.kind, goal.sides)
        if measured is not None:
            verdicts.append(Verdict(goal=goal.text, measured=measured, met=goal.met(measured)))
    return verdicts


def _goals(kinds: Sequence[str], durability: str) -> Iterator[Goal]:
    for kind in kinds:
        yield from _synced(kind) if durability == "sync" else _behind(kind)
        yield Goal(
            measure=Measure.RATE,
            kind=kind,
            sides=(_ours(8), _ours(1)),
            bound=1.0,
        )


def _behind(kind: str) -> Iterator[Goal]:
    """Yield the goals where neither side syncs."""
    for peer, measure, bound in (
        ("storescp-fork", Measure.CPU, 0.7 if kind == "dx" else 0.9),
        ("orthanc", Measure.CPU, 0.25),
        ("orthanc", Measure.RATE, 4.0),
        ("pynetdicom", Measure.CPU, 0.15),
    ):
        yield Goal(measure=measure, kind=kind, sides=(_ours(), Side(server=peer)), bound=bound)
    for peer in ("storescp-fork", "orthanc"):
        yield Goal(
            measure=Measure.RATE,
            kind=kind,
            sides=(_ours(1), Side(server=peer)),
            bound=10.0,
            part=Part.AS_SHIPPED,
        )


def _synced(kind: str) -> Iterator[Goal]:
    """Yield the goals where both sides sync before they answer."""
    for associations, bound in ((1, 1.5), (4, 2.0)):
        yield Goal(
            measure=Measure.RATE,
            kind=kind,
            sides=(_ours(associations), Side(server="orthanc", associations=associations)),
            bound=bound,
        )


def _ours(associations: int | None = None) -> Side:
    return Side(server=OURS, associations=associations)


def _worded(side: Side) -> str:
    if side.associations is None:
        return side.server
    return f"{side.server} with {side.associations} association{'s' * (side.associations > 1)}"
