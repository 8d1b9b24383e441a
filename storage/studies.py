"""Studies, series, instances and receipts: the index, and the state of each study revision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.database import Database
from storage.events import Clock, append_event
from storage.jobs import series_key, supersede_open_work
from storage.models import (
    Association,
    Instance,
    Job,
    Quarantine,
    Receipt,
    Result,
    Series,
    Study,
)
from storage.queries import instance_record, study_records
from storage.records import (
    Conservation,
    InstanceRecord,
    JsonValue,
    NewInstance,
    NewJob,
    NotFoundError,
    OutOfResourcesError,
    QuarantinedInstance,
    QuarantineRecord,
    Recorded,
    Routing,
    SeriesAttributes,
    SeriesRecord,
    StudyRecord,
)
from storage.states import (
    STUDY_TRANSITIONS,
    AssociationState,
    InstanceState,
    JobState,
    ReceiptOutcome,
    StudyState,
    check_transition,
)

RACES: Final = 5
"""How often a record() is tried again when another association wrote the same row meanwhile."""


class StudyStore:
    """Keeps the index and moves studies through their states; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # ------------------------------------------------------------ receiving

    def record(self, new: NewInstance) -> Recorded:
        """Index one instance whose bytes are durable, with its receipt.

        A new instance of a study that is no longer receiving opens its next revision. The same
        bytes again change nothing; other bytes under a known SOP Instance UID are kept apart.

        Raises:
            OutOfResourcesError: the database cannot take it now.
        """
        for _ in range(RACES):
            try:
                with self._database.transaction() as session:
                    return self._record(session, new)
            except IntegrityError:
                continue  # the same row was written by another association: look again
        raise OutOfResourcesError("too many associations write the same instance")

    def quarantine(self, item: QuarantinedInstance) -> None:
        """Keep a note of bytes that could not be indexed. They were not acknowledged."""
        now = self._clock()
        with self._database.transaction() as session:
            session.add(
                Quarantine(
                    at=now,
                    association_id=item.association_id,
                    listener=item.listener,
                    calling_ae=item.calling_ae,
                    peer_address=item.peer_address,
                    digest=item.digest,
                    size=item.size,
                    reason=item.reason,
                )
            )
            details = {"digest": item.digest, "reason": item.reason}
            append_event(session, now, "instance.quarantined", details=details)

    def _record(self, session: Session, new: NewInstance) -> Recorded:
        now = self._clock()
        own = _own_result(session, new.sop_instance_uid)
        if own is not None:
            return self._receive(session, new, own, ReceiptOutcome.OWN_RESULT, now)
        study = _study(session, new, now)
        series = _series(session, new, study.id)
        known = session.scalars(
            select(Instance.digest).where(
                Instance.series_id == series.id,
                Instance.sop_instance_uid == new.sop_instance_uid,
            )
        ).all()
        if new.digest in known:
            return self._receive(session, new, study, ReceiptOutcome.DUPLICATE, now)
        if known:
            _add_instance(session, new, study, series, InstanceState.CONFLICT, now)
            return self._receive(session, new, study, ReceiptOutcome.CONFLICT, now)
        if study.state != StudyState.RECEIVING.value:
            _open_revision(session, study, now, reason="late instance", by="node")
        _add_instance(session, new, study, series, InstanceState.CURRENT, now)
        study.last_received_at = now
        quiet = now + timedelta(seconds=new.quiet_seconds)
        study.complete_after = max(study.complete_after, quiet)
        return self._receive(session, new, study, ReceiptOutcome.STORED, now)

    @staticmethod
    def _receive(
        session: Session, new: NewInstance, study: Study, outcome: ReceiptOutcome, now: datetime
    ) -> Recorded:
        """Write the receipt; what is out of the ordinary stands on the timeline too."""
        session.add(
            Receipt(
                at=now,
                association_id=new.association_id,
                sop_instance_uid=new.sop_instance_uid,
                digest=new.digest,
                outcome=outcome.value,
            )
        )
        if outcome in {ReceiptOutcome.CONFLICT, ReceiptOutcome.OWN_RESULT}:
            append_event(
                session,
                now,
                f"instance.{outcome.value}",
                study_id=study.id,
                details={"sop_instance_uid": new.sop_instance_uid, "digest": new.digest},
            )
        return Recorded(outcome=outcome, study_id=study.id, revision=study.revision)

    # ------------------------------------------------------------ completing and routing

    def due(self, limit: int = 100) -> Sequence[StudyRecord]:
        """Return receiving studies that fell quiet and that no open association carries (R2)."""
        held = (
            select(Instance.study_id)
            .join(Association, Instance.association_id == Association.id)
            .where(Association.state == AssociationState.OPEN.value)
        )
        query = (
            select(Study)
            .where(
                Study.state == StudyState.RECEIVING.value,
                Study.complete_after <= self._clock(),
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
            _move(study, StudyState.COMPLETE)
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
            _move(study, StudyState.COMPLETE)
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
            jobs = [_job(study, routing, new, max_attempts, now) for new in routing.jobs]
            session.add_all(jobs)
            session.flush()
            _move(study, StudyState.ROUTED if jobs else StudyState.UNMATCHED)
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

    def fail_routing(self, study_id: int, revision: int, reason: str) -> None:
        """Say in the open that a complete study could not be routed, and why."""
        with self._database.transaction() as session:
            study = _at_revision(session, study_id, revision, StudyState.COMPLETE)
            if study is None:
                return
            _move(study, StudyState.FAILED)
            study.reason = reason
            append_event(
                session,
                self._clock(),
                "study.routing_failed",
                study_id=study_id,
                details={"reason": reason},
            )

    def reopen(self, study_instance_uid: str, *, reason: str, by: str) -> StudyRecord:
        """Open a study's next revision without a new instance: it is routed and read again.

        Raises:
            NotFoundError, TransitionError
        """
        now = self._clock()
        with self._database.transaction() as session:
            study = _by_uid(session, study_instance_uid)
            _open_revision(session, study, now, reason=reason, by=by)
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
            return [_series_record(row, number) for row, number in session.execute(query)]

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

    def quarantined(self, limit: int = 100) -> Sequence[QuarantineRecord]:
        """Return what was quarantined, newest first."""
        query = select(Quarantine).order_by(Quarantine.id.desc()).limit(limit)
        with self._database.reading() as session:
            return [_quarantine_record(row) for row in session.scalars(query)]

    def known_digests(self) -> Iterator[str]:
        """Yield every digest that a row refers to."""
        with self._database.reading() as session:
            for column in (Instance.digest, Result.digest, Quarantine.digest):
                yield from session.scalars(select(column))

    def conservation(self) -> Conservation:
        """Count what was acknowledged, and where it is now (invariant 14)."""
        with self._database.reading() as session:
            receipts = _count_by(session, select(Receipt.outcome, func.count()), Receipt.outcome)
            current = (
                select(Study.state, func.count())
                .join(Instance, Instance.study_id == Study.id)
                .where(Instance.state == InstanceState.CURRENT.value)
            )
            studies = _count_by(session, current, Study.state)
            conflicts = session.scalar(
                select(func.count()).where(Instance.state == InstanceState.CONFLICT.value)
            )
            quarantined = session.scalar(select(func.count(Quarantine.id)))
        return Conservation(
            received=sum(receipts.values()),
            in_progress=studies.get("receiving", 0) + studies.get("complete", 0),
            routed=studies.get("routed", 0),
            discarded=studies.get("unmatched", 0),
            failed=studies.get("failed", 0),
            duplicates=receipts.get("duplicate", 0),
            conflicts=conflicts or 0,
            own_results=receipts.get("own_result", 0),
            quarantined=quarantined or 0,
        )

    def _read(self, query: Select[Study]) -> Sequence[StudyRecord]:
        with self._database.reading() as session:
            return study_records(session, query)


def _count_by(session: Session, query: Select[str, int], column: object) -> dict[str, int]:
    rows = session.execute(query.group_by(column))  # type: ignore[arg-type]  # any mapped column
    return {state: count for state, count in rows}  # noqa: C416 - rows are not tuples to mypy


def _own_result(session: Session, sop_instance_uid: str) -> Study | None:
    """Return the study that one of our own results belongs to, if this is one (NET-01)."""
    return session.scalars(
        select(Study)
        .join(Job, Job.study_id == Study.id)
        .join(Result, Result.job_id == Job.id)
        .where(Result.sop_instance_uid == sop_instance_uid)
    ).first()


def _study(session: Session, new: NewInstance, now: datetime) -> Study:
    study = session.scalars(
        select(Study).where(Study.study_instance_uid == new.study_instance_uid).with_for_update()
    ).first()
    if study is not None:
        return study
    attributes = new.study
    study = Study(
        study_instance_uid=new.study_instance_uid,
        revision=1,
        state=StudyState.RECEIVING.value,
        patient_id=attributes.patient_id,
        issuer_of_patient_id=attributes.issuer_of_patient_id,
        patient_name=attributes.patient_name,
        patient_birth_date=attributes.patient_birth_date,
        patient_sex=attributes.patient_sex,
        accession_number=attributes.accession_number,
        study_code=attributes.study_id,
        study_date=attributes.study_date,
        study_time=attributes.study_time,
        study_description=attributes.study_description,
        referring_physician_name=attributes.referring_physician_name,
        listener=new.listener,
        calling_ae=new.calling_ae,
        first_received_at=now,
        last_received_at=now,
        complete_after=now,
        evidence={},
        reason="",
        rule_revision=None,
        explanation={},
    )
    session.add(study)
    session.flush()
    append_event(session, now, "study.received", study_id=study.id, details={"revision": 1})
    return study


def _series(session: Session, new: NewInstance, study_id: int) -> Series:
    series = session.scalars(
        select(Series).where(
            Series.study_id == study_id,
            Series.series_instance_uid == new.series_instance_uid,
        )
    ).first()
    if series is None:
        series = Series(
            study_id=study_id,
            series_instance_uid=new.series_instance_uid,
            modality=new.series.modality,
            series_number=new.series.series_number,
            series_description=new.series.series_description,
            body_part_examined=new.series.body_part_examined,
        )
        session.add(series)
        session.flush()
    return series


def _add_instance(  # noqa: PLR0917 - a row and what it belongs to
    session: Session,
    new: NewInstance,
    study: Study,
    series: Series,
    state: InstanceState,
    now: datetime,
) -> None:
    session.add(
        Instance(
            study_id=study.id,
            series_id=series.id,
            association_id=new.association_id,
            sop_instance_uid=new.sop_instance_uid,
            sop_class_uid=new.sop_class_uid,
            transfer_syntax_uid=new.transfer_syntax_uid,
            instance_number=new.instance_number,
            digest=new.digest,
            size=new.size,
            state=state.value,
            received_at=now,
            revision=study.revision,
        )
    )


def _open_revision(session: Session, study: Study, now: datetime, *, reason: str, by: str) -> None:
    _move(study, StudyState.RECEIVING)
    study.revision += 1
    study.evidence, study.explanation, study.reason = {}, {}, ""
    study.rule_revision = None
    supersede_open_work(session, now, study)
    append_event(
        session,
        now,
        "study.reopened",
        study_id=study.id,
        actor=by,
        details={"revision": study.revision, "reason": reason},
    )


def _move(study: Study, state: StudyState) -> None:
    check_transition(STUDY_TRANSITIONS, StudyState(study.state), state)
    study.state = state.value


def _at_revision(session: Session, study_id: int, revision: int, state: StudyState) -> Study | None:
    """Return the study, locked, if it still is at this revision and state."""
    return session.scalars(
        select(Study)
        .where(Study.id == study_id, Study.revision == revision, Study.state == state.value)
        .with_for_update()
    ).first()


def _by_uid(session: Session, study_instance_uid: str) -> Study:
    study = session.scalars(
        select(Study).where(Study.study_instance_uid == study_instance_uid).with_for_update()
    ).first()
    if study is None:
        raise NotFoundError(f"there is no study {study_instance_uid}")
    return study


def _job(study: Study, routing: Routing, new: NewJob, max_attempts: int, now: datetime) -> Job:
    return Job(
        study_id=study.id,
        revision=study.revision,
        rule=new.rule,
        rule_revision=routing.rule_revision,
        engine=new.engine,
        series_key=series_key(new.series_instance_uids),
        series_instance_uids=list(new.series_instance_uids),
        destinations=list(new.destinations),
        priority=new.priority,
        state=JobState.QUEUED.value,
        attempts=0,
        max_attempts=max_attempts,
        worker="",
        token=0,
        error_class=None,
        error="",
        created_at=now,
        not_before=now,
        started_at=None,
        finished_at=None,
        lease_until=None,
        summary={},
        timings={},
    )


def _series_record(row: Series, instances: int) -> SeriesRecord:
    return SeriesRecord(
        id=row.id,
        series_instance_uid=row.series_instance_uid,
        attributes=SeriesAttributes(
            modality=row.modality,
            series_number=row.series_number,
            series_description=row.series_description,
            body_part_examined=row.body_part_examined,
        ),
        instances=instances,
    )


def _quarantine_record(row: Quarantine) -> QuarantineRecord:
    return QuarantineRecord(
        id=row.id,
        at=row.at,
        digest=row.digest,
        size=row.size,
        reason=row.reason,
        listener=row.listener,
        calling_ae=row.calling_ae,
        peer_address=row.peer_address,
    )
