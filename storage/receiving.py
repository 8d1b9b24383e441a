"""What received instances do to the index, many of them in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session

from storage.events import append_event
from storage.models import Association, Instance, Job, Quarantine, Receipt, Result, Series, Study
from storage.records import NewInstance, QuarantinedInstance, Recorded
from storage.revisions import chunks_of, open_revision
from storage.states import InstanceState, ReceiptOutcome, StudyState

INSTANCES: Final = cast("Table", Instance.__table__)
RECEIPTS: Final = cast("Table", Receipt.__table__)
TOLD: Final = frozenset({ReceiptOutcome.CONFLICT, ReceiptOutcome.OWN_RESULT})
"""Outcomes that are out of the ordinary and so stand on the timeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One instance that was acknowledged, or is about to be, and who brought it when."""

    new: NewInstance
    at: datetime
    association_id: int | None = None


@dataclass(slots=True, kw_only=True)
class _Batch:
    """What is known of the index, and what will be written to it."""

    studies: dict[str, Study]
    series: dict[tuple[int, str], int]
    known: dict[tuple[int, str], set[str]]
    own: Mapping[str, Study]
    instances: list[dict[str, Any]] = field(default_factory=list)
    receipts: list[dict[str, Any]] = field(default_factory=list)


def receive(session: Session, arrivals: Sequence[Arrival]) -> list[Recorded]:
    """Index instances in the order they came, with their receipts, within one transaction."""
    batch = _look_up(session, arrivals)
    recorded = [_receive_one(session, batch, arrival) for arrival in arrivals]
    session.flush()
    if batch.instances:
        session.execute(insert(INSTANCES), batch.instances)
    session.execute(insert(RECEIPTS), batch.receipts)
    counts = Counter(arrival.association_id for arrival in arrivals)
    for association_id, count in counts.items():
        if association_id is not None:
            session.execute(
                update(Association)
                .where(Association.id == association_id)
                .values(received=Association.received + count)
            )
    return recorded


def _receive_one(session: Session, batch: _Batch, arrival: Arrival) -> Recorded:
    new = arrival.new
    own = batch.own.get(new.sop_instance_uid)
    if own is not None or new.own_result:
        return _receipt(session, batch, arrival, own, ReceiptOutcome.OWN_RESULT)
    study = batch.studies.get(new.study_instance_uid)
    if study is None:
        study = _new_study(session, arrival)
        batch.studies[new.study_instance_uid] = study
    series_id = _series(session, batch, new, study.id)
    known = batch.known.setdefault((series_id, new.sop_instance_uid), set())
    if new.digest in known:
        return _receipt(session, batch, arrival, study, ReceiptOutcome.DUPLICATE)
    state = InstanceState.CONFLICT if known else InstanceState.CURRENT
    if not known:
        _take_in(session, study, arrival)
    batch.instances.append(_instance(arrival, study, series_id, state))
    outcome = ReceiptOutcome.CONFLICT if known else ReceiptOutcome.STORED
    known.add(new.digest)
    return _receipt(session, batch, arrival, study, outcome)


def _take_in(session: Session, study: Study, arrival: Arrival) -> None:
    """Move the quiet time on; open the next revision of a study that no longer receives."""
    if study.state != StudyState.RECEIVING.value:
        open_revision(session, study, arrival.at, reason="late instance", by="node")
    study.last_received_at = max(study.last_received_at, arrival.at)
    quiet = arrival.at + timedelta(seconds=arrival.new.quiet_seconds)
    study.complete_after = max(study.complete_after, quiet)


def _receipt(
    session: Session,
    batch: _Batch,
    arrival: Arrival,
    study: Study | None,
    outcome: ReceiptOutcome,
) -> Recorded:
    """Note the receipt; what is out of the ordinary stands on the timeline too."""
    new = arrival.new
    batch.receipts.append(
        {
            "at": arrival.at,
            "association_id": arrival.association_id,
            "sop_instance_uid": new.sop_instance_uid,
            "digest": new.digest,
            "outcome": outcome.value,
        }
    )
    if outcome in TOLD:
        append_event(
            session,
            arrival.at,
            f"instance.{outcome.value}",
            study_id=None if study is None else study.id,
            details={"sop_instance_uid": new.sop_instance_uid, "digest": new.digest},
        )
    if study is None:
        return Recorded(outcome=outcome, study_id=0, revision=0)
    return Recorded(outcome=outcome, study_id=study.id, revision=study.revision)


def set_aside(session: Session, arrival: Arrival, reason: str) -> None:
    """Account for an acknowledged instance that the index refuses: kept, visible, with a reason."""
    new = arrival.new
    item = QuarantinedInstance(
        digest=new.digest,
        size=new.size,
        location=new.location,
        reason=reason,
        listener=new.listener,
        calling_ae=new.calling_ae,
        peer_address=new.peer_address,
    )
    keep_note(session, item, arrival.at, arrival.association_id, action="instance.not_indexed")
    session.add(
        Receipt(
            at=arrival.at,
            association_id=arrival.association_id,
            sop_instance_uid=new.sop_instance_uid[:64],
            digest=new.digest,
            outcome=ReceiptOutcome.NOT_INDEXED.value,
        )
    )


def keep_note(
    session: Session,
    item: QuarantinedInstance,
    at: datetime,
    association_id: int | None,
    *,
    action: str = "instance.quarantined",
) -> None:
    """Write down bytes that could not be indexed, within the caller's transaction."""
    session.add(
        Quarantine(
            at=at,
            association_id=association_id,
            listener=item.listener,
            calling_ae=item.calling_ae,
            peer_address=item.peer_address,
            digest=item.digest,
            size=item.size,
            pack=item.location.pack,
            pack_offset=item.location.offset,
            length=item.location.length,
            reason=item.reason,
        )
    )
    append_event(session, at, action, details={"digest": item.digest})


# ---------------------------------------------------------------- looking up


def _look_up(session: Session, arrivals: Sequence[Arrival]) -> _Batch:
    uids = {arrival.new.sop_instance_uid for arrival in arrivals}
    studies = _studies(session, {arrival.new.study_instance_uid for arrival in arrivals})
    series = _known_series(session, [study.id for study in studies.values()])
    return _Batch(
        studies=studies,
        series=series,
        known=_known_digests(session, series.values(), uids) if series else {},
        own=_own_results(session, uids),
    )


def _studies(session: Session, uids: Iterable[str]) -> dict[str, Study]:
    """Return the studies that are there, locked in one order."""
    found: dict[str, Study] = {}
    for chunk in chunks_of(sorted(uids)):
        rows = session.scalars(
            select(Study)
            .where(Study.study_instance_uid.in_(chunk))
            .order_by(Study.id)
            .with_for_update(key_share=True)
        )
        found |= {row.study_instance_uid: row for row in rows}
    return found


def _known_series(session: Session, study_ids: Sequence[int]) -> dict[tuple[int, str], int]:
    query = select(Series.study_id, Series.series_instance_uid, Series.id)
    return {
        (study_id, uid): series_id
        for chunk in chunks_of(study_ids)
        for study_id, uid, series_id in session.execute(query.where(Series.study_id.in_(chunk)))
    }


def _known_digests(
    session: Session, series_ids: Iterable[int], uids: Iterable[str]
) -> dict[tuple[int, str], set[str]]:
    wanted = set(series_ids)
    query = select(Instance.series_id, Instance.sop_instance_uid, Instance.digest)
    found: dict[tuple[int, str], set[str]] = {}
    for chunk in chunks_of(sorted(uids)):
        rows = session.execute(
            query.where(Instance.series_id.in_(wanted), Instance.sop_instance_uid.in_(chunk))
        )
        for series_id, uid, digest in rows:
            found.setdefault((series_id, uid), set()).add(digest)
    return found


def _own_results(session: Session, uids: Iterable[str]) -> dict[str, Study]:
    """Return which of the instances are our own results, and their studies (NET-01)."""
    found: dict[str, Study] = {}
    for chunk in chunks_of(sorted(uids)):
        rows = session.execute(
            select(Result.sop_instance_uid, Study)
            .join(Job, Job.study_id == Study.id)
            .join(Result, Result.job_id == Job.id)
            .where(Result.sop_instance_uid.in_(chunk))
        )
        found |= {uid: study for uid, study in rows}  # noqa: C416 - rows are not tuples to mypy
    return found


# ---------------------------------------------------------------- rows


def _new_study(session: Session, arrival: Arrival) -> Study:
    new, attributes = arrival.new, arrival.new.study
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
        first_received_at=arrival.at,
        last_received_at=arrival.at,
        complete_after=arrival.at,
        evidence={},
        reason="",
        rule_revision=None,
        explanation={},
    )
    session.add(study)
    session.flush()
    append_event(session, arrival.at, "study.received", study_id=study.id, details={"revision": 1})
    return study


def _series(session: Session, batch: _Batch, new: NewInstance, study_id: int) -> int:
    series_id = batch.series.get((study_id, new.series_instance_uid))
    if series_id is not None:
        return series_id
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
    batch.series[study_id, new.series_instance_uid] = series.id
    return series.id


def _instance(
    arrival: Arrival, study: Study, series_id: int, state: InstanceState
) -> dict[str, Any]:
    new = arrival.new
    return {
        "study_id": study.id,
        "series_id": series_id,
        "association_id": arrival.association_id,
        "sop_instance_uid": new.sop_instance_uid,
        "sop_class_uid": new.sop_class_uid,
        "transfer_syntax_uid": new.transfer_syntax_uid,
        "instance_number": new.instance_number,
        "digest": new.digest,
        "size": new.size,
        "pack": new.location.pack,
        "pack_offset": new.location.offset,
        "length": new.location.length,
        "state": state.value,
        "received_at": arrival.at,
        "revision": study.revision,
    }
