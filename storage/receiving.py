"""What received instances do to the index, many of them in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import Table, bindparam, case, select, update
from sqlalchemy.orm import Session

from storage.bulk import BulkInsert
from storage.events import append_event
from storage.lots import chunks_of, evened
from storage.models import Instance, Job, Receipt, Result, Series, Study
from storage.progress import count_received
from storage.records import Arrival, NewInstance, Recorded
from storage.revisions import open_revision
from storage.states import InstanceState, ReceiptOutcome, StudyState

INSERT_INSTANCES: Final = BulkInsert(
    cast("Table", Instance.__table__),
    [
        "study_id",
        "series_id",
        "association_id",
        "sop_instance_uid",
        "sop_class_uid",
        "transfer_syntax_uid",
        "instance_number",
        "digest",
        "size",
        "pack",
        "pack_offset",
        "length",
        "state",
        "received_at",
        "revision",
    ],
)
INSERT_RECEIPTS: Final = BulkInsert(
    cast("Table", Receipt.__table__),
    ["at", "association_id", "sop_instance_uid", "digest", "outcome"],
)
DIGESTS: Final = select(
    Instance.series_id,
    Instance.sop_instance_uid,
    Instance.digest,
    case((Instance.deletion_id.is_not(None), Instance.id)),
).where(
    Instance.series_id.in_(bindparam("series", expanding=True)),
    Instance.sop_instance_uid.in_(bindparam("uids", expanding=True)),
)
OWN_RESULTS: Final = (
    select(Result.sop_instance_uid, Study)
    .join(Job, Job.study_id == Study.id)
    .join(Result, Result.job_id == Job.id)
    .where(Result.sop_instance_uid.in_(bindparam("uids", expanding=True)))
)
TOLD: Final = frozenset({ReceiptOutcome.CONFLICT, ReceiptOutcome.OWN_RESULT})
"""Outcomes that are out of the ordinary and so stand on the timeline."""


@dataclass(slots=True, kw_only=True)
class _Batch:
    """What is known of the index, and what will be written to it."""

    studies: dict[str, Study]
    series: dict[tuple[int, str], int]
    known: dict[tuple[int, str], dict[str, int | None]]
    """Digests by series and SOP Instance UID; the row of one whose bytes retention deleted."""
    own: Mapping[str, Study]
    quiet: dict[int, _Quiet] = field(default_factory=dict)
    instances: list[tuple[Any, ...]] = field(default_factory=list)
    receipts: list[tuple[Any, ...]] = field(default_factory=list)
    returned: list[dict[str, Any]] = field(default_factory=list)

    def is_own_result(self, new: NewInstance) -> bool:
        return new.own_result or new.sop_instance_uid in self.own


@dataclass(slots=True)
class _Quiet:
    """The last moment that something came for a study, and until when it is not quiet."""

    last: datetime
    until: datetime


def receive(session: Session, arrivals: Sequence[Arrival]) -> list[Recorded]:
    """Index instances in the order they came, with their receipts, within one transaction."""
    batch = _look_up(session, arrivals)
    _begin_studies(session, batch, arrivals)
    recorded = [_receive_one(session, batch, arrival) for arrival in arrivals]
    for study in batch.studies.values():
        _move_quiet_time(study, batch.quiet.get(study.id))
    session.flush()
    INSERT_INSTANCES(session, batch.instances)
    INSERT_RECEIPTS(session, batch.receipts)
    if batch.returned:
        _take_back(session, batch.returned, arrivals[-1].at)
    counts = Counter(arrival.association_id for arrival in arrivals)
    count_received(session, counts)
    return recorded


def _begin_studies(session: Session, batch: _Batch, arrivals: Sequence[Arrival]) -> None:
    """Make the studies that are new, in one order, so that no two writers wait in a circle."""
    new = {
        arrival.new.study_instance_uid: arrival
        for arrival in reversed(arrivals)  # the first that came of a study stands
        if arrival.new.study_instance_uid not in batch.studies
        and not batch.is_own_result(arrival.new)
    }
    for uid, arrival in sorted(new.items(), key=lambda item: item[0]):
        batch.studies[uid] = _new_study(session, arrival)


def _receive_one(session: Session, batch: _Batch, arrival: Arrival) -> Recorded:
    new = arrival.new
    if batch.is_own_result(new):
        own = batch.own.get(new.sop_instance_uid)
        return _receipt(session, batch, arrival, own, ReceiptOutcome.OWN_RESULT)
    study = batch.studies[new.study_instance_uid]
    series_id = _series(session, batch, new, study.id)
    known = batch.known.setdefault((series_id, new.sop_instance_uid), {})
    if new.digest in known:
        if (gone := known[new.digest]) is not None:
            batch.returned.append(_returned(session, batch, study, arrival, gone))
            known[new.digest] = None
        return _receipt(session, batch, arrival, study, ReceiptOutcome.DUPLICATE)
    state = InstanceState.CONFLICT if known else InstanceState.CURRENT
    if not known:
        _take_in(session, batch, study, arrival)
    batch.instances.append(_instance(arrival, study, series_id, state))
    outcome = ReceiptOutcome.CONFLICT if known else ReceiptOutcome.STORED
    known[new.digest] = None
    study.emptied_at = None
    return _receipt(session, batch, arrival, study, outcome)


def _take_in(session: Session, batch: _Batch, study: Study, arrival: Arrival) -> None:
    """Move the quiet time on; open the next revision of a study that no longer receives."""
    if study.state != StudyState.RECEIVING.value:
        open_revision(session, study, arrival.at, reason="late instance", by="node")
    _hear(batch, study, arrival)


def _hear(batch: _Batch, study: Study, arrival: Arrival) -> None:
    """Note that something came for a study, and how long it is not quiet."""
    until = arrival.at + timedelta(seconds=arrival.new.quiet_seconds)
    quiet = batch.quiet.get(study.id)
    if quiet is None:
        batch.quiet[study.id] = _Quiet(arrival.at, until)
        return
    quiet.last = max(quiet.last, arrival.at)
    quiet.until = max(quiet.until, until)


def _move_quiet_time(study: Study, quiet: _Quiet | None) -> None:
    if quiet is not None:
        study.last_received_at = max(study.last_received_at, quiet.last)
        study.complete_after = max(study.complete_after, quiet.until)


def _returned(
    session: Session, batch: _Batch, study: Study, arrival: Arrival, row: int
) -> dict[str, Any]:
    """Return what changes in the row of an instance that came again after retention deleted it.

    The same bytes are nothing new, so a study that was read is not read again. One that could not
    be routed, perhaps for want of them, is tried again.
    """
    new = arrival.new
    if study.state == StudyState.FAILED.value:
        open_revision(session, study, arrival.at, reason="deleted instances came again", by="node")
    if study.state == StudyState.RECEIVING.value:
        _hear(batch, study, arrival)
    study.last_received_at = max(study.last_received_at, arrival.at)
    study.emptied_at = None
    return {
        "id": row,
        "study_id": study.id,
        "association_id": arrival.association_id,
        "transfer_syntax_uid": new.transfer_syntax_uid,
        "pack": new.location.pack,
        "pack_offset": new.location.offset,
        "length": new.location.length,
        "revision": study.revision,
        "deletion_id": None,
    }


def _take_back(session: Session, returned: Sequence[Mapping[str, Any]], at: datetime) -> None:
    session.execute(update(Instance), list(returned))
    for study_id, count in Counter(item["study_id"] for item in returned).items():
        details = {"instances": count}
        append_event(session, at, "study.bytes_returned", study_id=study_id, details=details)


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
        (arrival.at, arrival.association_id, new.sop_instance_uid, new.digest, outcome.value)
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
) -> dict[tuple[int, str], dict[str, int | None]]:
    wanted = evened(list(series_ids))
    found: dict[tuple[int, str], dict[str, int | None]] = {}
    for chunk in chunks_of(sorted(uids)):
        rows = session.execute(DIGESTS, {"series": wanted, "uids": chunk})
        for series_id, uid, digest, gone in rows:
            found.setdefault((series_id, uid), {})[digest] = gone
    return found


def _own_results(session: Session, uids: Iterable[str]) -> dict[str, Study]:
    """Return which of the instances are our own results, and their studies (NET-01)."""
    found: dict[str, Study] = {}
    for chunk in chunks_of(sorted(uids)):
        rows = session.execute(OWN_RESULTS, {"uids": chunk})
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
) -> tuple[Any, ...]:
    """Return a row in the order of INSERT_INSTANCES."""
    new, location = arrival.new, arrival.new.location
    return (
        study.id,
        series_id,
        arrival.association_id,
        new.sop_instance_uid,
        new.sop_class_uid,
        new.transfer_syntax_uid,
        new.instance_number,
        new.digest,
        new.size,
        location.pack,
        location.offset,
        location.length,
        state.value,
        arrival.at,
        study.revision,
    )
