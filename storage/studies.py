"""Studies, series, instances and receipts: the index, and the state of each study revision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session, aliased

from storage.accounting import count_instances
from storage.database import Database
from storage.events import Clock, append_event
from storage.gone import refuse_gone_instances, tell_gone_instances
from storage.jobs import new_job
from storage.models import (
    Association,
    Deletion,
    Instance,
    Quarantine,
    Result,
    Series,
    Study,
)
from storage.queries import (
    instance_record,
    quarantine_record,
    series_record,
    study_records,
)
from storage.receiving import receive
from storage.records import (
    Arrival,
    Conservation,
    ConstraintError,
    InstanceRecord,
    JsonValue,
    NewInstance,
    NotFoundError,
    QuarantinedInstance,
    QuarantineRecord,
    Recorded,
    Routing,
    SeriesRecord,
    StudyRecord,
)
from storage.revisions import move_study, open_revision
from storage.setting_aside import keep_note
from storage.states import (
    AssociationState,
    InstanceState,
    StudyState,
)

RACES: Final = 5
"""How often a record() is tried again when another association wrote the same row meanwhile."""


class StudyStore:
    """Keeps the index and moves studies through their states; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # ------------------------------------------------------------ receiving

    def record(self, new: NewInstance, association_id: int | None = None) -> Recorded:
        """Index one instance whose bytes are durable, with its receipt.

        A new instance of a study that is no longer receiving opens its next revision. The same
        bytes again change nothing; other bytes under a known SOP Instance UID are kept apart.

        Raises:
            OutOfResourcesError: the database cannot take it now.
            DataRefusedError: a UID or digest is longer than 64 characters.
            ConstraintError: the association was never opened.
        """
        for _ in range(RACES):
            with suppress(ConstraintError):  # another association wrote the same row: look again
                return self._receive(new, association_id)
        return self._receive(new, association_id)

    def _receive(self, new: NewInstance, association_id: int | None) -> Recorded:
        arrival = Arrival(new=new, at=self._clock(), association_id=association_id)
        with self._database.transaction() as session:
            return receive(session, [arrival])[0]

    def quarantine(self, item: QuarantinedInstance) -> None:
        """Keep a note of bytes that could not be indexed. They were not acknowledged."""
        with self._database.transaction() as session:
            keep_note(session, item, self._clock(), None)

    # ------------------------------------------------------------ completing and routing

    def due(self, limit: int = 100, *, ahead: timedelta = timedelta()) -> Sequence[StudyRecord]:
        """Return receiving studies that fell quiet and that no open association carries (R2).

        An association that brought only earlier revisions holds nothing. With `ahead`, those too
        that will have fallen quiet by then, if nothing more comes.
        """
        holder = aliased(Study)
        held = (
            select(Instance.study_id)
            .join(Association, Instance.association_id == Association.id)
            .join(holder, Instance.study_id == holder.id)
            .where(
                Association.state == AssociationState.OPEN.value,
                Instance.revision == holder.revision,
            )
        )
        query = (
            select(Study)
            .where(
                Study.state == StudyState.RECEIVING.value,
                Study.complete_after <= self._clock() + ahead,
                Study.id.not_in(held),
            )
            .order_by(Study.complete_after)
            .limit(limit)
        )
        return self._read(query)

    def to_route(self, limit: int = 100) -> Sequence[StudyRecord]:
        """Return complete studies that routing has not decided on yet."""
        query = (
            select(Study)
            .where(Study.state == StudyState.COMPLETE.value)
            .order_by(Study.complete_after)
            .limit(limit)
        )
        return self._read(query)

    def postpone(self, study_id: int, revision: int, until: datetime) -> None:
        """Wait longer for a study that is still receiving."""
        with self._database.transaction() as session:
            study = _at_revision(session, study_id, revision, StudyState.RECEIVING)
            if study is not None:
                study.complete_after = max(study.complete_after, until)

    def complete(self, study_id: int, revision: int, evidence: Mapping[str, JsonValue]) -> bool:
        """Close a study revision, with the evidence; False if it moved on meanwhile."""
        now = self._clock()
        with self._database.transaction() as session:
            study = _at_revision(session, study_id, revision, StudyState.RECEIVING)
            if study is None or study.complete_after > now:
                return False
            move_study(study, StudyState.COMPLETE)
            study.evidence = dict(evidence)
            append_event(session, now, "study.completed", study_id=study_id, details=study.evidence)
            return True

    def complete_now(self, study_instance_uid: str, by: str) -> StudyRecord:
        """Close a receiving study on an operator's word.

        Raises:
            NotFoundError, TransitionError
        """
        now = self._clock()
        with self._database.transaction() as session:
            study = _by_uid(session, study_instance_uid)
            move_study(study, StudyState.COMPLETE)
            study.evidence = {"kind": "operator", "by": by}
            append_event(
                session,
                now,
                "study.completed",
                study_id=study.id,
                actor=by,
                details=study.evidence,
            )
        return self.get(study_instance_uid)

    def route(
        self, study_id: int, revision: int, routing: Routing, max_attempts: int = 3
    ) -> list[int]:
        """Write the jobs of a complete study and its state, together; return the job ids.

        Without jobs the study is UNMATCHED. A study that moved on, or was routed already, gets
        nothing: running this twice does nothing.
        """
        now = self._clock()
        with self._database.transaction() as session:
            study = _at_revision(session, study_id, revision, StudyState.COMPLETE)
            if study is None:
                return []
            jobs = [new_job(study, routing, new, max_attempts, now) for new in routing.jobs]
            session.add_all(jobs)
            session.flush()
            move_study(study, StudyState.ROUTED if jobs else StudyState.UNMATCHED)
            study.rule_revision = routing.rule_revision
            study.explanation = dict(routing.explanation)
            study.reason = "" if jobs else f"no rule of revision {routing.rule_revision} wants it"
            append_event(
                session,
                now,
                f"study.{study.state}",
                study_id=study_id,
                details={"rule_revision": routing.rule_revision, "jobs": len(jobs)},
            )
            return [job.id for job in jobs]

    def fail_routing(self, study_id: int, revision: int, reason: str, code: str = "") -> None:
        """Say in the open that a complete study could not be routed, and why."""
        with self._database.transaction() as session:
            study = _at_revision(session, study_id, revision, StudyState.COMPLETE)
            if study is None:
                return
            move_study(study, StudyState.FAILED)
            study.reason = reason
            append_event(
                session,
                self._clock(),
                "study.routing_failed",
                study_id=study_id,
                details={"revision": revision, **({"code": code} if code else {})},
            )

    def gone(self, study_id: int) -> str:
        """Return in words what retention deleted of a study's instances, or ""."""
        with self._database.reading() as session:
            return tell_gone_instances(session, study_id)

    def reopen(self, study_instance_uid: str, *, reason: str, by: str) -> StudyRecord:
        """Open a study's next revision without a new instance: it is routed and read again.

        Raises:
            NotFoundError, TransitionError
            BytesDeletedError: it cannot be read whole any more.
        """
        now = self._clock()
        with self._database.transaction() as session:
            study = _by_uid(session, study_instance_uid)
            refuse_gone_instances(session, study.id)
            open_revision(session, study, now, reason=reason, by=by)
            study.complete_after = now
        return self.get(study_instance_uid)

    # ------------------------------------------------------------ looking

    def get(self, study_instance_uid: str) -> StudyRecord:
        """Return one study.

        Raises:
            NotFoundError: the study never arrived here.
        """
        found = self._read(select(Study).where(Study.study_instance_uid == study_instance_uid))
        if not found:
            raise NotFoundError(f"there is no study {study_instance_uid}")
        return found[0]

    def by_id(self, study_id: int) -> StudyRecord:
        """Return one study by its row.

        Raises:
            NotFoundError: there is no such row.
        """
        found = self._read(select(Study).where(Study.id == study_id))
        if not found:
            raise NotFoundError(f"there is no study row {study_id}")
        return found[0]

    def list(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        state: StudyState | None = None,
        text: str = "",
    ) -> Sequence[StudyRecord]:
        """Return studies, those that received last first.

        `text` is looked for in Patient ID, Patient's Name, Accession Number and the study UID.
        """
        query = select(Study).order_by(Study.last_received_at.desc(), Study.id.desc())
        if state is not None:
            query = query.where(Study.state == state.value)
        if text:
            columns = (
                Study.patient_id,
                Study.patient_name,
                Study.accession_number,
                Study.study_instance_uid,
            )
            query = query.where(
                or_(*(column.icontains(text, autoescape=True) for column in columns))
            )
        return self._read(query.limit(limit).offset(offset))

    def counts(self) -> Mapping[StudyState, int]:
        """Return how many studies are in each state that has any."""
        query = select(Study.state, func.count()).group_by(Study.state)
        with self._database.reading() as session:
            return {StudyState(state): count for state, count in session.execute(query)}

    def series(self, study_id: int) -> Sequence[SeriesRecord]:
        """Return the series of a study, by their UID."""
        count = (
            select(func.count(Instance.id))
            .where(
                Instance.series_id == Series.id,
                Instance.state == InstanceState.CURRENT.value,
            )
            .scalar_subquery()
        )
        query = (
            select(Series, count)
            .where(Series.study_id == study_id)
            .order_by(Series.series_instance_uid)
        )
        with self._database.reading() as session:
            return [series_record(row, number) for row, number in session.execute(query)]

    def instances(
        self,
        study_id: int,
        series_instance_uids: Sequence[str] | None = None,
        *,
        include_conflicts: bool = False,
    ) -> Sequence[InstanceRecord]:
        """Return the instances of a study, or of some of its series, by SOP Instance UID."""
        query = (
            select(Instance, Series.series_instance_uid)
            .join(Series)
            .where(Instance.study_id == study_id)
            .order_by(Instance.sop_instance_uid, Instance.id)
        )
        if series_instance_uids is not None:
            query = query.where(Series.series_instance_uid.in_(series_instance_uids))
        if not include_conflicts:
            query = query.where(Instance.state == InstanceState.CURRENT.value)
        with self._database.reading() as session:
            return [instance_record(row, uid) for row, uid in session.execute(query)]

    def instances_named(self, uid: str) -> Sequence[InstanceRecord]:
        """Return the instances, conflicts too, of the study, series or instance with this UID.

        Raises:
            NotFoundError: there is none.
        """
        named = (Study.study_instance_uid, Series.series_instance_uid, Instance.sop_instance_uid)
        query = (
            select(Instance, Series.series_instance_uid)
            .join(Series, Instance.series_id == Series.id)
            .join(Study, Instance.study_id == Study.id)
            .where(or_(*(column == uid for column in named)))
            .order_by(Instance.id)
        )
        with self._database.reading() as session:
            found = [instance_record(row, series) for row, series in session.execute(query)]
        if not found:
            raise NotFoundError(f"there is no study, series or instance {uid}")
        return found

    def quarantined(self, limit: int = 100) -> Sequence[QuarantineRecord]:
        """Return what was quarantined, newest first."""
        query = (
            select(Quarantine, Deletion.at)
            .outerjoin(Deletion, Quarantine.deletion_id == Deletion.id)
            .order_by(Quarantine.id.desc())
            .limit(limit)
        )
        with self._database.reading() as session:
            return [quarantine_record(row, at) for row, at in session.execute(query)]

    def result_digests(self) -> Iterator[str]:
        """Yield the digest of every result object that has a row and was not deleted."""
        with self._database.reading() as session:
            yield from session.scalars(select(Result.digest).where(Result.deletion_id.is_(None)))

    def conservation(self) -> Conservation:
        """Count what was acknowledged, and where it is now (invariant 14): one moment of both."""
        with self._database.reading() as session:
            return count_instances(session)

    def _read(self, query: Select[Study]) -> Sequence[StudyRecord]:
        with self._database.reading() as session:
            return study_records(session, query)


def _at_revision(session: Session, study_id: int, revision: int, state: StudyState) -> Study | None:
    """Return the study, locked, if it still is at this revision and state."""
    return session.scalars(
        select(Study)
        .where(Study.id == study_id, Study.revision == revision, Study.state == state.value)
        .with_for_update(key_share=True)
    ).first()


def _by_uid(session: Session, study_instance_uid: str) -> Study:
    study = session.scalars(
        select(Study)
        .where(Study.study_instance_uid == study_instance_uid)
        .with_for_update(key_share=True)
    ).first()
    if study is None:
        raise NotFoundError(f"there is no study {study_instance_uid}")
    return study
