"""Whatever arrives, is read, sent, held and swept in whatever order: nothing needed is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records import BytesDeletedError, SupersededError
from storage.states import (
    DeliveryState,
    ErrorClass,
    JobState,
    StudyState,
    TransitionError,
)
from tests.storage.holding import QUIET, Holding
from tests.storage.keeping import DAY, EVERYTHING, Keeping, refused

STUDIES: Final = tuple(f"1.2.826.0.7.{number}" for number in range(3))
URGENT: Final = replace(EVERYTHING, low_bytes=1 << 60, high_bytes=1 << 61)
BUSY_JOBS: Final = {JobState.QUEUED, JobState.RUNNING}
BUSY_DELIVERIES: Final = {DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.PARKED}

ACTS: Final = (
    "receive", "complete", "route", "fail routing", "finish", "fail", "retry job", "deliver",
    "refuse", "lease delivery", "retry delivery", "hold", "release", "reopen", "wait a day",
    "seal", "sweep", "sweep for room", "crash in a sweep", "be routed", "be read",
)  # fmt: skip
steps = st.lists(
    st.tuples(st.sampled_from(ACTS), st.integers(0, 2), st.integers(1, 3)), min_size=12, max_size=40
)


class CrashError(BaseException):
    """Stands in for the end of the process."""


class World:
    """A node's stores, moved by acts that may or may not apply just then."""

    def __init__(self, folder: Path, template: Path) -> None:
        shutil.copy(template, folder / "wetread.db")
        self.held = Holding(f"sqlite:///{folder / 'wetread.db'}")
        self.keeping = Keeping(self.held, folder / "objects")
        self.held.deliveries.set_destinations([("PACS", "dimse")])

    def act(self, name: str, study: str, number: int) -> None:
        """Do one thing; then look whether all that is needed is there."""
        acts: dict[str, Callable[[str, int], object]] = {
            "receive": lambda study, number: self.keeping.receive(number, study=study),
            "complete": self.complete,
            "be routed": self.be_routed,
            "be read": self.be_read,
            "route": self.route,
            "fail routing": self.fail_routing,
            "finish": self.finish,
            "fail": self.fail,
            "retry job": self.retry_job,
            "deliver": lambda *_: self.keeping.deliver(),
            "refuse": self.refuse,
            "lease delivery": lambda *_: self.held.deliveries.lease("PACS", limit=1, seconds=1e7),
            "retry delivery": self.retry_delivery,
            "hold": lambda study, _: self.keeping.holds.hold(study, by="anna", reason=""),
            "release": lambda study, _: self.keeping.holds.release(study, by="anna"),
            "reopen": lambda study, _: self.held.studies.reopen(study, reason="", by="anna"),
            "wait a day": lambda _, number: self.held.clock.advance(number * DAY),
            "seal": lambda *_: self.keeping.seal(),
            "sweep": lambda *_: self.keeping.retention().sweep(),
            "sweep for room": lambda *_: self.keeping.retention(URGENT).sweep(),
            "crash in a sweep": self.crash,
        }
        known = {record.study_instance_uid for record in self.held.studies.list()}
        if name not in {"receive", "be routed", "be read"} and study not in known:
            return
        self.held.clock.advance(60)
        try:
            acts[name](study, number)
        except (BytesDeletedError, SupersededError, TransitionError):
            return  # refused in words: that is an answer

    def complete(self, study: str, _: int) -> None:
        self.held.clock.advance(QUIET)
        record = self.held.studies.get(study)
        self.held.studies.complete(record.id, record.revision, {"kind": "quiet"})

    def route(self, study: str, _: int) -> None:
        """Route as the node does: what is not whole fails in the open."""
        record = self.held.studies.get(study)
        if record.state is not StudyState.COMPLETE:
            return
        if self.held.studies.gone(record.id):
            self.held.studies.fail_routing(record.id, record.revision, "BYTES_DELETED")
            return
        self.held.clock.advance(-QUIET)
        self.held.execute("UPDATE study SET state = 'receiving' WHERE id = :id", id=record.id)
        self.held.route(study, jobs=2)

    def be_routed(self, study: str, number: int) -> None:
        self.keeping.receive(number, study=study)
        self.complete(study, number)
        self.route(study, number)

    def be_read(self, study: str, number: int) -> None:
        self.be_routed(study, number)
        self.finish()
        self.finish()
        self.keeping.deliver()

    def fail_routing(self, study: str, _: int) -> None:
        record = self.held.studies.get(study)
        self.held.studies.fail_routing(record.id, record.revision, "for a test")

    def finish(self, *_: object) -> None:
        leased = self.held.jobs.lease("worker-1", 1e7)
        if leased is not None:
            for item in leased.instances:
                assert self.keeping.there(item.location), "a job's instance is gone"
            outcome = self.keeping.outcome(leased, 1)
            self.held.jobs.finish(leased.job.id, leased.token, outcome)

    def fail(self, _: str, number: int) -> None:
        leased = self.held.jobs.lease("worker-1", 1e7)
        if leased is not None and number > 1:
            self.held.jobs.fail(
                leased.job.id,
                leased.token,
                error_class=ErrorClass.CRASH,
                error="",
                retry_in=None,
            )

    def retry_job(self, _: str, number: int) -> None:
        for job in self.held.jobs.list(state=JobState.FAILED)[:number]:
            self.held.jobs.retry(job.id, by="anna")

    def refuse(self, *_: object) -> None:
        for leased in self.held.deliveries.lease("PACS", limit=1, seconds=60):
            self.held.deliveries.record(leased.delivery.id, leased.token, refused())

    def retry_delivery(self, _: str, number: int) -> None:
        for item in self.held.deliveries.list(state=DeliveryState.SENT)[:number]:
            self.held.deliveries.retry(item.id, by="anna")
        for item in self.held.deliveries.list(state=DeliveryState.FAILED)[:number]:
            self.held.deliveries.retry(item.id, by="anna")

    def crash(self, study: str, number: int) -> None:
        retention = self.keeping.retention(URGENT)
        step = ("_finish_one", "_remove", "_forget", "_erase", "_mark_removed")[number]

        def die(*_: object) -> bool:
            raise CrashError(study)

        setattr(retention, step, die)
        try:
            retention.sweep()
        except CrashError:
            self.keeping.seal()
            self.keeping.open()

    # ------------------------------------------------------------ what must hold at all times

    def check(self) -> None:
        """Look at every row: what it says is there is there, and what is needed is said to be."""
        stores = self.held
        assert stores.studies.conservation().missing == 0
        holds = {item.study_instance_uid for item in self.keeping.holds.list()}
        for record in stores.studies.list():
            instances = stores.studies.instances(record.id, include_conflicts=True)
            for item in instances:
                if item.deletion_id is None:
                    assert self.keeping.there(item.location), "a kept instance is gone"
            jobs = stores.jobs.list(study_id=record.id)
            if any(job.state in BUSY_JOBS for job in jobs):
                assert not stores.studies.gone(record.id), "an open job's study is gone"
            there = any(item.deletion_id is None for item in instances)
            assert there == (record.emptied_at is None)
            assert there or record.study_instance_uid not in holds or self.was_gone(record.id)
        self.check_results()

    def check_results(self) -> None:
        """Look whether all that waits to be sent is there."""
        stores = self.held
        results = {item.id: item for item in stores.jobs.results()}
        for delivery in stores.deliveries.list():
            result = results[delivery.result_id]
            if delivery.state in BUSY_DELIVERIES:
                assert result.deletion_id is None, "a waiting delivery's result is gone"
            if result.deletion_id is None:
                assert self.keeping.objects.exists(result.digest)

    def was_gone(self, study_id: int) -> bool:
        """Say whether a study's bytes went before it was held."""
        actions = [event.action for event in self.held.events.timeline(study_id)]
        last_held = max(at for at, action in enumerate(actions) if action == "study.held")
        return "study.bytes_deleted" not in actions[last_held:]

    def check_end(self) -> None:
        """After a last sweep nothing is half deleted, and every pack that is there has its row."""
        self.keeping.seal()
        assert self.keeping.retention().sweep().unfinished == 0
        self.check()
        assert set(self.keeping.packs.names()) == set(self.keeping.indexer.indexed_through())
        for record in self.held.studies.list():
            for item in self.held.studies.instances(record.id, include_conflicts=True):
                assert self.keeping.there(item.location) == (item.deletion_id is None)


@given(steps)
@settings(max_examples=40, deadline=None)
def test_no_sequence_of_events_deletes_what_is_needed(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    plan: list[tuple[str, int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("world")
    world = World(folder, sqlite_template)
    try:
        for name, study, number in plan:
            world.act(name, STUDIES[study], number)
            if "sweep" in name or "retry" in name:
                world.check()
        world.check_end()
    finally:
        world.keeping.seal()
        world.held.close()
        shutil.rmtree(folder)
