"""Everything that keeps a node's state, opened from its settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from node.clock import Clock, system_clock
from node.retaining import policy_of, tell
from node.settings import Settings
from storage.associations import AssociationStore
from storage.database import Database, check_schema, downgrade, migrate
from storage.deliveries import DeliveryStore
from storage.engines import EngineStore
from storage.events import EventStore
from storage.expectations import ExpectationStore
from storage.holdings import HoldingStore
from storage.holds import HoldStore
from storage.jobs import JobStore
from storage.objects import ObjectStore
from storage.pack_folders import owner_name, pack_folder
from storage.packs import PackStore
from storage.recalls import RecallStore
from storage.retention import Retention
from storage.reviews import ReviewStore
from storage.rules import RuleStore
from storage.studies import StudyStore
from storage.waiting import WaitingStore
from storage.withdrawals import WithdrawalStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything that keeps state."""

    database: Database
    packs: PackStore
    objects: ObjectStore
    associations: AssociationStore
    studies: StudyStore
    jobs: JobStore
    deliveries: DeliveryStore
    rules: RuleStore
    engines: EngineStore
    events: EventStore
    expectations: ExpectationStore
    waiting: WaitingStore
    holds: HoldStore
    holdings: HoldingStore
    recalls: RecallStore
    withdrawals: WithdrawalStore
    reviews: ReviewStore


def open_stores(settings: Settings, clock: Clock = system_clock) -> Stores:
    """Open the stores of a node; the database must have this version's schema.

    Raises:
        SchemaError: saying what to run.
    """
    url = settings.database_url()
    check_schema(url)
    database = Database(url)
    return Stores(
        database=database,
        packs=_packs(settings, 0),
        objects=ObjectStore(settings.node.data_dir / "objects"),
        associations=AssociationStore(database, clock, owner=settings.node.name),
        studies=StudyStore(database, clock),
        jobs=JobStore(database, clock),
        deliveries=DeliveryStore(database, clock),
        rules=RuleStore(database, clock),
        engines=EngineStore(database, clock),
        events=EventStore(database, clock),
        expectations=ExpectationStore(database, clock),
        waiting=WaitingStore(database),
        holds=HoldStore(database, clock),
        holdings=HoldingStore(database),
        recalls=RecallStore(database, clock),
        withdrawals=WithdrawalStore(database, clock),
        reviews=ReviewStore(database, clock),
    )


def open_retention(settings: Settings, stores: Stores, clock: Clock = system_clock) -> Retention:
    """Make the one that deletes, with the rules of the configuration, over a node's stores."""
    return Retention(
        database=stores.database,
        packs=stores.packs,
        objects=stores.objects,
        clock=clock,
        policy=policy_of(settings),
        tell=tell,
    )


def stores_of(
    process: int, settings: Settings, stores: Stores, clock: Clock = system_clock
) -> Stores:
    """Return the stores as another process of the node has them: its own packs and associations."""
    owner = owner_name(settings.node.name, process)
    return replace(
        stores,
        packs=_packs(settings, process),
        associations=AssociationStore(stores.database, clock, owner=owner),
    )


def _packs(settings: Settings, process: int) -> PackStore:
    root = settings.node.data_dir / "objects" / "packs"
    return PackStore(
        pack_folder(root, process),
        root=root,
        pack_bytes=settings.storage.pack_mib << 20,
        durable=settings.storage.durability == "sync",
    )


def prepare(settings: Settings) -> None:
    """Make the data folder and, on SQLite, bring the schema up to date.

    A PostgreSQL schema is shared by several nodes: there a person runs `wetread migrate`.
    """
    settings.node.data_dir.mkdir(parents=True, exist_ok=True)
    if settings.database_url().startswith("sqlite"):
        migrate(settings.database_url())


def move_schema(settings: Settings, revision: str, *, down: bool) -> None:
    """Bring the schema to a revision, or back to an older one (`wetread migrate`)."""
    settings.node.data_dir.mkdir(parents=True, exist_ok=True)
    if down:
        downgrade(settings.database_url(), revision)
    else:
        migrate(settings.database_url(), revision)
