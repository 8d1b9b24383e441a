"""What others say that a study has: an archive's counts, procedure steps, notifications.

Kept by study UID and source, apart from what was received: the study may come later, or never.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Select, bindparam, delete, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import ConstraintError, NotFoundError
from storage.events import Clock, append_event
from storage.models import Event, Expectation, Instance, Job, Result, Series, Study
from storage.queries import carried, study_records
from storage.records import JsonValue, StudyRecord
from storage.states import (
    ExpectationSource,
    ExpectationState,
    InstanceState,
    StudyState,
    TransitionError,
)

WAITS: Final = "study.waits"
NEXT_DUE: Final = select(func.min(Study.complete_after)).where(
    Study.state == StudyState.RECEIVING.value, Study.complete_after > bindparam("now")
)
ANY_TO_CLOSE_OR_ROUTE: Final = select(literal(1)).where(
    or_(
        exists().where(Study.state == StudyState.COMPLETE.value),
        exists().where(
            Study.state == StudyState.RECEIVING.value, Study.complete_after <= bindparam("now")
        ),
        exists().where(
            Study.state == StudyState.RECEIVING.value,
            Expectation.study_instance_uid == Study.study_instance_uid,
            Expectation.series_instance_uid == "",
            Expectation.state == ExpectationState.COUNTED.value,
        ),
    )
)
STUCK_SECONDS: Final = 60.0
"""A study that is due for so long is not asked about any more: something else holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSaid:
    """What is said of one series: how many instances, and which, where they are named."""

    instances: int
    sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one source says of a study. `reference_uid` tells steps and notifications apart.

    `instances` is its number for the whole study, if it gives one; `note` why it is not known.
    """

    study_instance_uid: str
    source: ExpectationSource
    state: ExpectationState
    reference_uid: str = ""
    instances: int | None = None
    series: Mapping[str, SeriesSaid] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidRecord:
    """What was said, when last, and since when it is just this."""

    said: Said
    since: datetime
    said_at: datetime


class ExpectationStore:
    """Keeps what sources say, and finds the studies that it matters to."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # ------------------------------------------------------------ what is said

    def answered(self, said: Said) -> None:
        """Keep a source's latest answer in place of the one before.

        Raises:
            ConstraintError: another node kept one just now.
            DataRefusedError: a UID is longer than 64 characters.
        """
        now = self._clock()
        with self._database.transaction() as session:
            rows = _rows(session, said.study_instance_uid, said.source, said.reference_uid)
            before = next(iter(_records(rows.values())), None)
            since = before.since if before is not None and _same(before.said, said) else now
            _write(session, rows, said, since=since, now=now)

    def announced(self, said: Said) -> None:
        """Keep the first word of a procedure step or notification.

        Raises:
            ConstraintError: its SOP Instance UID is known already.
            DataRefusedError: a UID is longer than 64 characters.
        """
        now = self._clock()
        with self._database.transaction() as session:
            if _by_reference(session, said.source, said.reference_uid) is not None:
                raise ConstraintError("the SOP Instance UID is known already")
            _write(session, {}, said, since=now, now=now)

    def updated(
        self,
        source: ExpectationSource,
        reference_uid: str,
        state: ExpectationState,
        series: Mapping[str, SeriesSaid] | None,
    ) -> None:
        """Keep what a procedure step says now; without series, those it named before stand.

        Raises:
            NotFoundError: it was never announced.
            TransitionError: it has ended; an ended step may not be changed (PS3.4 F.7.2.2.2).
        """
        now = self._clock()
        with self._database.transaction() as session:
            head = _by_reference(session, source, reference_uid)
            if head is None:
                raise NotFoundError("there is no such procedure step")
            if head.state != ExpectationState.IN_PROGRESS.value:
                raise TransitionError("the procedure step has ended")
            rows = _rows(session, head.study_instance_uid, source, reference_uid)
            (before,) = _records(rows.values())
            said = replace(
                before.said, state=state, series=before.said.series if series is None else series
            )
            since = before.since if before.said.state is state else now
            _write(session, rows, said, since=since, now=now)

    def of(self, study_instance_uids: Sequence[str]) -> Mapping[str, Sequence[SaidRecord]]:
        """Return what was said of some studies, by study UID."""
        query = select(Expectation).where(Expectation.study_instance_uid.in_(study_instance_uids))
        found: dict[str, list[SaidRecord]] = {}
        with self._database.reading() as session:
            for record in _records(session.scalars(query.order_by(Expectation.id)).all()):
                found.setdefault(record.said.study_instance_uid, []).append(record)
        return found

    def forget(self, before: datetime) -> int:
        """Remove what was said before a moment; return how many rows. It is no study's state."""
        with self._database.transaction() as session:
            gone = session.scalars(
                delete(Expectation).where(Expectation.said_at < before).returning(Expectation.id)
            ).all()
        return len(gone)

    # ------------------------------------------------------------ the studies it matters to

    def to_ask(self, every_seconds: float, limit: int = 50) -> Sequence[StudyRecord]:
        """Return studies that an archive should be asked about now, the most urgent first.

        They are receiving, no open association carries them, and the last answer is older than
        `every_seconds` or than the last instance.
        """
        now = self._clock()
        fresh = exists().where(
            Expectation.study_instance_uid == Study.study_instance_uid,
            Expectation.source == ExpectationSource.ARCHIVE.value,
            Expectation.series_instance_uid == "",
            Expectation.said_at > now - timedelta(seconds=every_seconds),
            Expectation.said_at >= Study.last_received_at,
        )
        stuck = now - timedelta(seconds=STUCK_SECONDS)
        query = _receiving().where(~fresh, Study.complete_after > stuck)
        return self._read(query.order_by(Study.complete_after).limit(limit))

    def counted(self, limit: int = 200) -> Sequence[StudyRecord]:
        """Return studies that are not due yet, not carried, and of which a source gave a number."""
        said = exists().where(
            Expectation.study_instance_uid == Study.study_instance_uid,
            Expectation.series_instance_uid == "",
            Expectation.state == ExpectationState.COUNTED.value,
        )
        query = _receiving().where(said, Study.complete_after > self._clock())
        return self._read(query.order_by(Study.last_received_at.desc()).limit(limit))

    def any_to_close_or_route(self, *, ahead: timedelta = timedelta()) -> bool:
        """Say whether `counted`, or a store's `due` or `to_route`, may find a study: a cheap look.

        With `ahead`, those too that fall quiet by then.
        It asks at each look of an idle node, and of one whose scanners send for hours.
        """
        return self._database.finds(ANY_TO_CLOSE_OR_ROUTE, now=self._clock() + ahead)

    def next_due(self) -> datetime | None:
        """Return when the next receiving study will have fallen quiet; None: there is none."""
        row = self._database.first(NEXT_DUE, now=self._clock())
        return None if row is None else row[0]

    def received(self, study_id: int) -> Mapping[str, frozenset[str]]:
        """Return the SOP Instance UIDs that are held of a study, by Series Instance UID."""
        query = (
            select(Series.series_instance_uid, Instance.sop_instance_uid)
            .join(Instance, Instance.series_id == Series.id)
            .where(
                Instance.study_id == study_id,
                Instance.state == InstanceState.CURRENT.value,
            )
        )
        found: dict[str, set[str]] = {}
        with self._database.reading() as session:
            for series, instance in session.execute(query):
                found.setdefault(series, set()).add(instance)
        return {uid: frozenset(instances) for uid, instances in found.items()}

    def own_series(self, study_id: int) -> frozenset[str]:
        """Return the series that this node made for a study: an archive counts them too."""
        query = select(Result.series_instance_uid).join(Job).where(Job.study_id == study_id)
        with self._database.reading() as session:
            return frozenset(session.scalars(query))

    def hasten(self, study: StudyRecord) -> bool:
        """Make a study due now; False if it moved on, received more, or is carried meanwhile."""
        with self._database.transaction() as session:
            row = session.scalars(
                _receiving()
                .where(Study.id == study.id, Study.revision == study.revision)
                .with_for_update(key_share=True)
            ).first()
            if row is None or row.last_received_at != study.last_received_at:
                return False
            row.complete_after = min(row.complete_after, self._clock())
            return True

    def tell_waiting(self, study: StudyRecord, details: Mapping[str, JsonValue]) -> bool:
        """Write onto the timeline that a study is known to be incomplete, and is waited for.

        It is written once after each instance; False: it was.
        """
        told = exists().where(
            Event.study_id == study.id,
            Event.action == WAITS,
            Event.at >= study.last_received_at,
        )
        with self._database.transaction() as session:
            if session.scalar(select(told)):
                return False
            append_event(session, self._clock(), WAITS, study_id=study.id, details=details)
            return True

    def _read(self, query: Select[Study]) -> Sequence[StudyRecord]:
        with self._database.reading() as session:
            return study_records(session, query)


def _receiving() -> Select[Study]:
    return select(Study).where(Study.state == StudyState.RECEIVING.value, ~carried())


def _by_reference(
    session: Session, source: ExpectationSource, reference_uid: str
) -> Expectation | None:
    return session.scalars(
        select(Expectation)
        .where(
            Expectation.reference_uid == reference_uid,
            Expectation.source == source.value,
            Expectation.series_instance_uid == "",
        )
        .with_for_update()
    ).first()


def _rows(
    session: Session, study_instance_uid: str, source: ExpectationSource, reference_uid: str
) -> dict[str, Expectation]:
    """Return the rows of one source's word, by Series Instance UID, locked."""
    query = select(Expectation).where(
        Expectation.study_instance_uid == study_instance_uid,
        Expectation.source == source.value,
        Expectation.reference_uid == reference_uid,
    )
    rows = session.scalars(query.order_by(Expectation.id).with_for_update()).all()
    return {row.series_instance_uid: row for row in rows}


def _same(before: Said, now: Said) -> bool:
    return (before.state, before.instances, before.series) == (
        now.state,
        now.instances,
        now.series,
    )


def _write(
    session: Session,
    rows: Mapping[str, Expectation],
    said: Said,
    *,
    since: datetime,
    now: datetime,
) -> None:
    """Make the rows say this, and no others; series of which the same is said are not written."""
    for uid in rows.keys() - said.series.keys() - {""}:
        session.delete(rows[uid])
    head = rows.get("") or _added(session, said, "")
    head.state, head.instances, head.note = said.state.value, said.instances, said.note
    head.since, head.said_at = since, now
    for uid, part in said.series.items():
        named = list(part.sop_instance_uids)
        row = rows.get(uid) or _added(session, said, uid)
        if (row.state, row.instances, row.sop_instance_uids) != (
            said.state.value,
            part.instances,
            named,
        ):
            row.state, row.instances, row.sop_instance_uids = (
                said.state.value,
                part.instances,
                named,
            )
            row.since, row.said_at = since, now


def _added(session: Session, said: Said, series_instance_uid: str) -> Expectation:
    row = Expectation(
        study_instance_uid=said.study_instance_uid,
        source=said.source.value,
        reference_uid=said.reference_uid,
        series_instance_uid=series_instance_uid,
        sop_instance_uids=[],
        note="",
    )
    session.add(row)
    return row


def _records(rows: Collection[Expectation]) -> Iterator[SaidRecord]:
    """Yield what the rows say, a record for each source and step."""
    heads = [row for row in rows if not row.series_instance_uid]
    parts: dict[tuple[str, str, str], dict[str, SeriesSaid]] = {}
    for row in rows:
        if row.series_instance_uid:
            parts.setdefault(_what(row), {})[row.series_instance_uid] = SeriesSaid(
                instances=row.instances or 0, sop_instance_uids=tuple(row.sop_instance_uids)
            )
    for row in heads:
        said = Said(
            study_instance_uid=row.study_instance_uid,
            source=ExpectationSource(row.source),
            state=ExpectationState(row.state),
            reference_uid=row.reference_uid,
            instances=row.instances,
            series=parts.get(_what(row), {}),
            note=row.note,
        )
        yield SaidRecord(said=said, since=row.since, said_at=row.said_at)


def _what(row: Expectation) -> tuple[str, str, str]:
    return row.study_instance_uid, row.source, row.reference_uid
