"""The first page: is everything accounted for, and does anything need a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from node.admin.context import AdminContext
from node.admin.parameters import Admin, Renderer
from node.admin.replies import ConservationReply
from storage.records import Conservation, DestinationRecord, EngineRecord
from storage.states import DeliveryState, EngineState, JobState, StudyState

RECENT_ASSOCIATIONS: Final = 10

TAKES_JOBS: Final = frozenset({EngineState.ACTIVE, EngineState.SHADOW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One thing that needs a person, and the page that shows it."""

    text: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many studies, jobs or deliveries are in each state."""

    name: str
    kind: str
    path: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One term of the conservation equation."""

    name: str
    count: int
    meaning: str


def overview(context: Admin, pages: Renderer) -> HTMLResponse:
    """Show the state of the whole node."""
    studies = context.studies.counts()
    jobs = context.jobs.counts()
    deliveries = context.deliveries.counts()
    conservation = context.studies.conservation()
    destinations = context.deliveries.destinations()
    engines = context.engines.list()
    readiness = context.readiness()
    return pages.render(
        "overview.html",
        groups=_groups(studies, jobs, deliveries),
        conservation=conservation,
        terms=conservation_terms(conservation),
        destinations=destinations,
        engines=engines,
        associations=context.associations.recent(RECENT_ASSOCIATIONS),
        rules=context.rules.current(),
        readiness=readiness,
        attention=(
            *_unready(readiness),
            *_missing(context, engines, destinations),
            *_uncounted(conservation),
            *_stuck(studies, jobs, deliveries),
            *_held(context.reviews.waiting()),
            *_parked(context, destinations),
            *_no_engine(engines),
        ),
    )


def conservation_terms(found: Conservation) -> tuple[Term, ...]:
    """Return the right side of the conservation equation, in words."""
    return (
        Term(name="in progress", count=found.in_progress, meaning="receiving or complete"),
        Term(name="routed", count=found.routed, meaning="given to at least one job"),
        Term(name="discarded by rules", count=found.discarded, meaning="no rule wanted them"),
        Term(name="failed", count=found.failed, meaning="their study could not be routed"),
        Term(name="duplicates", count=found.duplicates, meaning="the same bytes came again"),
        Term(name="conflicts", count=found.conflicts, meaning="other bytes under a known UID"),
        Term(name="own results", count=found.own_results, meaning="our results came back"),
    )


def conservation(context: Admin) -> ConservationReply:
    """Answer where every acknowledged instance is."""
    return ConservationReply.model_validate(context.studies.conservation())


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/", overview, include_in_schema=False, response_class=HTMLResponse)
    router.add_api_route("/api/conservation", conservation, response_model=ConservationReply)
    return router


def _groups(
    studies: Mapping[StudyState, int],
    jobs: Mapping[JobState, int],
    deliveries: Mapping[DeliveryState, int],
) -> tuple[Group, ...]:
    return (
        Group(
            name="Studies",
            kind="study",
            path="/studies",
            counts={state.value: studies.get(state, 0) for state in StudyState},
        ),
        Group(
            name="Jobs",
            kind="job",
            path="/jobs",
            counts={state.value: jobs.get(state, 0) for state in JobState},
        ),
        Group(
            name="Deliveries",
            kind="delivery",
            path="/deliveries",
            counts={state.value: deliveries.get(state, 0) for state in DeliveryState},
        ),
    )


def _unready(readiness: Mapping[str, str]) -> list[Attention]:
    return [
        Attention(text=f"{component}: {problem}", link="#components")
        for component, problem in sorted(readiness.items())
        if problem
    ]


def _missing(
    context: AdminContext,
    engines: Sequence[EngineRecord],
    destinations: Sequence[DestinationRecord],
) -> list[Attention]:
    """Name what a node needs before any study can come out as a result."""
    found = []
    if not context.settings.listeners:
        found.append(Attention(text="no listener is configured: nothing can arrive", link="#ways"))
    if context.rules.current() is None:
        found.append(Attention(text="no rules are saved: no study can be routed", link="/rules"))
    if not any(engine.state in TAKES_JOBS for engine in engines):
        found.append(Attention(text="no engine is active: no job can run", link="#engines"))
    if not destinations:
        text = "no destination is configured: no result can be sent"
        found.append(Attention(text=text, link="#destinations"))
    return found


def _uncounted(found: Conservation) -> list[Attention]:
    if found.missing == 0:
        return []
    text = f"{found.missing} acknowledged instances are not accounted for"
    return [Attention(text=text, link="#conservation")]


def _stuck(
    studies: Mapping[StudyState, int],
    jobs: Mapping[JobState, int],
    deliveries: Mapping[DeliveryState, int],
) -> list[Attention]:
    kinds = (
        (
            "studies that could not be routed",
            studies.get(StudyState.FAILED, 0),
            "/studies",
            "failed",
        ),
        ("jobs that failed", jobs.get(JobState.FAILED, 0), "/jobs", "failed"),
        ("jobs that spent their attempts", jobs.get(JobState.DEAD, 0), "/jobs", "dead"),
        (
            "deliveries that were refused for good",
            deliveries.get(DeliveryState.FAILED, 0),
            "/deliveries",
            "failed",
        ),
    )
    return [
        Attention(text=f"{text}: {count}", link=f"{path}?state={state}")
        for text, count, path, state in kinds
        if count
    ]


def _held(waiting: int) -> list[Attention]:
    text = f"results held back until a person has seen them: {waiting}"
    return [Attention(text=text, link="/reviews")] if waiting else []


def _parked(context: AdminContext, destinations: Sequence[DestinationRecord]) -> list[Attention]:
    now = context.clock()
    return [
        Attention(
            text=f"destination {item.name} is down: {item.last_error or 'no answer'}",
            link="#destinations",
        )
        for item in destinations
        if item.parked_until is not None and item.parked_until > now
    ]


def _no_engine(engines: Sequence[EngineRecord]) -> list[Attention]:
    return [
        Attention(text=f"engine {item.name} is unavailable: {item.reason}", link="#engines")
        for item in engines
        if item.state is EngineState.UNAVAILABLE
    ]
