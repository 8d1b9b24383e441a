"""Metrics in the Prometheus format, read from the stores when they are asked for.

Labels are states, component names and names from the configuration; never anything of a study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.admin.context import AdminContext
from storage.records import Conservation, DestinationRecord
from storage.states import DeliveryState, JobState, StudyState

S = TypeVar("S", bound=StrEnum)


class StoreCollector(Collector):
    """Count what the stores hold, at the moment of the scrape."""

    def __init__(self, context: AdminContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the node."""
        context = self._context
        info = GaugeMetricFamily("wetread_info", "The running node.", labels=["version"])
        info.add_metric([context.version], 1)
        yield info
        yield from _conservation(context.studies.conservation())
        yield _by_state(
            "wetread_studies", "Studies by state.", StudyState, context.studies.counts()
        )
        yield _by_state("wetread_jobs", "Jobs by state.", JobState, context.jobs.counts())
        yield _by_state(
            "wetread_deliveries",
            "Deliveries by state.",
            DeliveryState,
            context.deliveries.counts(),
        )
        yield from _destinations(context.deliveries.destinations(), context)
        yield _engines(context)
        yield GaugeMetricFamily(
            "wetread_reviews_waiting",
            "Results that are held back until a person has seen them.",
            value=context.reviews.waiting(),
        )
        yield from _retention(context)
        yield _readiness(context.readiness())
        yield _restarts(context.restarts())


def make_registry(context: AdminContext) -> CollectorRegistry:
    """Make a registry of its own for one application."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreCollector(context))
    return registry


def _by_state(name: str, text: str, states: type[S], counts: Mapping[S, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state in states:
        family.add_metric([state.value], counts.get(state, 0))
    return family


def _conservation(found: Conservation) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "wetread_instances_received",
        "Instances acknowledged to a sender.",
        value=found.received,
    )
    places = GaugeMetricFamily(
        "wetread_instances", "Where the acknowledged instances are.", labels=["place"]
    )
    for place, count in (
        ("in_progress", found.in_progress),
        ("routed", found.routed),
        ("discarded", found.discarded),
        ("failed", found.failed),
        ("duplicate", found.duplicates),
        ("conflict", found.conflicts),
        ("own_result", found.own_results),
    ):
        places.add_metric([place], count)
    yield places
    yield GaugeMetricFamily(
        "wetread_instances_quarantined",
        "Instances kept although they were answered with an error.",
        value=found.quarantined,
    )
    yield GaugeMetricFamily(
        "wetread_conservation_missing",
        "Acknowledged instances that no state accounts for; zero at all times.",
        value=found.missing,
    )


def _destinations(
    destinations: Sequence[DestinationRecord], context: AdminContext
) -> Iterator[Metric]:
    now = context.clock()
    parked = GaugeMetricFamily(
        "wetread_destination_breaker_open",
        "1 while nothing is sent to a destination because it was down.",
        labels=["destination"],
    )
    failures = GaugeMetricFamily(
        "wetread_destination_failures",
        "How often in a row a destination could not be reached.",
        labels=["destination"],
    )
    for destination in destinations:
        is_open = destination.parked_until is not None and destination.parked_until > now
        parked.add_metric([destination.name], int(is_open))
        failures.add_metric([destination.name], destination.failures)
    yield parked
    yield failures


def _engines(context: AdminContext) -> Metric:
    family = GaugeMetricFamily(
        "wetread_engine", "1 for the state an engine is in.", labels=["engine", "state"]
    )
    for engine in context.engines.list():
        family.add_metric([engine.name, engine.state.value], 1)
    return family


def _retention(context: AdminContext) -> Iterator[Metric]:
    deleted = CounterMetricFamily(
        "wetread_retention_deleted_bytes", "Bytes deleted.", labels=["kind", "rule"]
    )
    for total in context.holds.totals():
        deleted.add_metric([total.kind.value, total.rule.value], total.size)
    yield deleted
    yield GaugeMetricFamily(
        "wetread_retention_unfinished",
        "Deletions that are written down and whose bytes are not all gone yet.",
        value=context.holds.unfinished(),
    )
    yield GaugeMetricFamily(
        "wetread_studies_held", "Studies that retention leaves alone.", value=context.holds.count()
    )
    oldest = context.holds.oldest_kept()
    yield GaugeMetricFamily(
        "wetread_oldest_kept_seconds",
        "Time since the last instance of the oldest study whose bytes are kept.",
        value=0.0 if oldest is None else (context.clock() - oldest).total_seconds(),
    )
    yield GaugeMetricFamily(
        "wetread_disk_free_bytes",
        "What the disk under received instances can take.",
        value=context.free_bytes(),
    )


def _readiness(components: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(
        "wetread_component_ready", "1 while a component can do its work.", labels=["component"]
    )
    for component, problem in sorted(components.items()):
        family.add_metric([component], int(not problem))
    return family


def _restarts(restarts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "wetread_listener_restarts",
        "How often a process of a listener was started again because it died.",
        labels=["process"],
    )
    for process, count in sorted(restarts.items()):
        family.add_metric([process], count)
    return family
