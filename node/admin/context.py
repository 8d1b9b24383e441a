"""What the admin page is handed: the stores it reads, and who the node is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from node.clock import Clock
from storage.associations import AssociationStore
from storage.deliveries import DeliveryStore
from storage.engines import EngineStore
from storage.events import EventStore
from storage.holds import HoldStore
from storage.jobs import JobStore
from storage.recalls import RecallStore
from storage.retention_records import RetentionPolicy
from storage.reviews import ReviewStore
from storage.rules import RuleStore
from storage.studies import StudyStore
from storage.withdrawals import WithdrawalStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSummary:
    """One door of the node, as people name it: `dimse`, `dicom://WETREAD@127.0.0.1:11112`."""

    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsSummary:
    """The settings worth showing. Nothing secret belongs here: all of it is printed.

    `destinations` gives the address of each destination by its name. `lines` are further settings
    as (name, value), in the order in which they are shown.
    """

    listeners: tuple[ListenerSummary, ...] = ()
    destinations: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminContext:
    """Everything the admin page may use.

    `readiness` maps each component to "" or to what is wrong with it; `live` says whether the
    process still does its work; `free_bytes` is what the disk can still take; `restarts` counts how
    often each process of a listener was started again. All are called from several threads.
    """

    studies: StudyStore
    jobs: JobStore
    deliveries: DeliveryStore
    rules: RuleStore
    engines: EngineStore
    events: EventStore
    associations: AssociationStore
    holds: HoldStore
    recalls: RecallStore
    withdrawals: WithdrawalStore
    reviews: ReviewStore
    policy: RetentionPolicy
    free_bytes: Callable[[], int]
    device_name: str
    version: str
    clock: Clock
    readiness: Callable[[], Mapping[str, str]]
    live: Callable[[], bool]
    settings: SettingsSummary
    restarts: Callable[[], Mapping[str, int]] = dict
