"""Study assembly put together from the configuration: what is swept, and how patiently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from node.archive import Archive, ArchivePeer
from node.clock import Clock
from node.completion import Completion, Patience
from node.inquiry import Inquiry
from node.planning import Planner, RuleBooks
from node.sandbox import Sandbox
from node.scheduler import Sweep
from node.settings import QuerySettings, Settings, quiet_seconds_for
from storage.expectations import ExpectationStore
from storage.packs import PackStore
from storage.rules import RuleStore
from storage.studies import StudyStore

FORGET_SECONDS: Final = 3600.0


class AssemblyStores(Protocol):
    """The stores that study assembly works on."""

    @property
    def studies(self) -> StudyStore:
        """The index, and the state of each study."""
        ...

    @property
    def packs(self) -> PackStore:
        """The received bytes."""
        ...

    @property
    def rules(self) -> RuleStore:
        """The routing rules."""
        ...

    @property
    def expectations(self) -> ExpectationStore:
        """What others say that a study has."""
        ...


def completion_sweeps(
    settings: Settings,
    stores: AssemblyStores,
    sandbox: Sandbox,
    clock: Clock,
    *,
    settled: Callable[[], bool],
    routed: Callable[[], None],
) -> tuple[Sweep, ...]:
    """Return the sweeps that complete and route studies; with an archive, the one that asks it.

    `settled` says that all that was acknowledged is durable and indexed; `routed` is told that
    there may be jobs.
    """
    planner = Planner(
        studies=stores.studies,
        packs=stores.packs,
        rules=RuleBooks(stores.rules),
        sandbox=sandbox,
        clock=clock,
        max_attempts=settings.worker.max_attempts,
    )
    completion = Completion(
        studies=stores.studies,
        expectations=stores.expectations,
        planner=planner,
        patience=patience_of(settings),
        clock=clock,
        settled=settled,
        routed=routed,
    )
    seconds = settings.completion.sweep_seconds
    sweeps = [
        Sweep(name="completion", seconds=seconds, run=completion.sweep, due=completion.next_due),
        Sweep(name="expectations", seconds=FORGET_SECONDS, run=completion.forget),
    ]
    query = settings.completion.query
    if query is not None:
        sweeps.append(_archive_sweep(query, stores, seconds))
    return tuple(sweeps)


def _archive_sweep(query: QuerySettings, stores: AssemblyStores, seconds: float) -> Sweep:
    inquiry = Inquiry(
        archive=Archive(_peer(query)),
        expectations=stores.expectations,
        every_seconds=query.every_seconds,
        ignore_modalities=query.ignore_modalities,
    )
    return Sweep(name="archive", seconds=min(seconds, query.every_seconds), run=inquiry.sweep)


def patience_of(settings: Settings) -> Patience:
    """Return how long the configuration lets a study be waited for."""
    completion = settings.completion
    query = completion.query
    return Patience(
        quiet_time=lambda modality, ae: quiet_seconds_for(settings, modality, ae),
        missing=completion.wait_seconds,
        step=completion.procedure_step_seconds,
        archive=0.0 if query is None else _longest_answer(query),
        every=0.0 if query is None else query.every_seconds,
    )


def _longest_answer(query: QuerySettings) -> float:
    return query.connect_seconds + query.acse_seconds + query.dimse_seconds


def _peer(query: QuerySettings) -> ArchivePeer:
    return ArchivePeer(
        host=query.host,
        port=query.port,
        ae_title=query.ae_title,
        calling_ae_title=query.calling_ae_title,
        connect_seconds=query.connect_seconds,
        acse_seconds=query.acse_seconds,
        dimse_seconds=query.dimse_seconds,
    )
