"""What one received instance does to the index; `StudyStore.record` runs it, one transaction."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.events import append_event
from storage.models import Instance, Job, Quarantine, Receipt, Result, Series, Study
from storage.records import NewInstance, QuarantinedInstance, Recorded
from storage.revisions import open_revision
from storage.states import InstanceState, ReceiptOutcome, StudyState


def receive(session: Session, new: NewInstance, now: datetime) -> Recorded:
    """Index one instance and write its receipt, within the caller's transaction."""
    own = _own_result(session, new.sop_instance_uid)
    if own is not None:
        return _receipt(session, new, own, ReceiptOutcome.OWN_RESULT, now)
    study = _study(session, new, now)
    series = _series(session, new, study.id)
    known = session.scalars(
        select(Instance.digest).where(
            Instance.series_id == series.id,
            Instance.sop_instance_uid == new.sop_instance_uid,
        )
    ).all()
    if new.digest in known:
        return _receipt(session, new, study, ReceiptOutcome.DUPLICATE, now)
    if known:
        _add_instance(session, new, study, series, InstanceState.CONFLICT, now)
        return _receipt(session, new, study, ReceiptOutcome.CONFLICT, now)
    if study.state != StudyState.RECEIVING.value:
        open_revision(session, study, now, reason="late instance", by="node")
    _add_instance(session, new, study, series, InstanceState.CURRENT, now)
    study.last_received_at = now
    quiet = now + timedelta(seconds=new.quiet_seconds)
    study.complete_after = max(study.complete_after, quiet)
    return _receipt(session, new, study, ReceiptOutcome.STORED, now)


def _receipt(
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


def keep_note(session: Session, item: QuarantinedInstance, now: datetime) -> None:
    """Write down bytes that could not be indexed, within the caller's transaction."""
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
    append_event(session, now, "instance.quarantined", details={"digest": item.digest})


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
        select(Study)
        .where(Study.study_instance_uid == new.study_instance_uid)
        .with_for_update(key_share=True)
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
