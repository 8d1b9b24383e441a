"""Rows into records, where more than one store needs it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Row, Select, exists, func, select
from sqlalchemy.orm import Session

from storage.models import Association, Instance, Quarantine, Series, Study
from storage.records import (
    InstanceRecord,
    Location,
    QuarantineRecord,
    SeriesAttributes,
    SeriesRecord,
    StudyAttributes,
    StudyRecord,
)
from storage.states import AssociationState, InstanceState, StudyState


def carried() -> ColumnElement[bool]:
    """Return the condition that an open association brought some of a study's revision (R2)."""
    return (
        exists()
        .where(
            Instance.study_id == Study.id,
            Instance.revision == Study.revision,
            Instance.association_id == Association.id,
            Association.state == AssociationState.OPEN.value,
        )
        .correlate(Study)
    )


def instance_record(row: Instance, series_instance_uid: str) -> InstanceRecord:
    """Return one instance as a record."""
    return InstanceRecord(
        id=row.id,
        series_instance_uid=series_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        instance_number=row.instance_number,
        digest=row.digest,
        size=row.size,
        location=Location(pack=row.pack, offset=row.pack_offset, length=row.length),
        state=InstanceState(row.state),
        received_at=row.received_at,
        revision=row.revision,
        deletion_id=row.deletion_id,
    )


def series_record(row: Series, instances: int) -> SeriesRecord:
    """Return one series, and how many instances it has, as a record."""
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


def quarantine_record(row: Quarantine, deleted_at: datetime | None) -> QuarantineRecord:
    """Return one note of quarantine as a record."""
    return QuarantineRecord(
        id=row.id,
        at=row.at,
        digest=row.digest,
        size=row.size,
        location=Location(pack=row.pack, offset=row.pack_offset, length=row.length),
        reason=row.reason,
        listener=row.listener,
        calling_ae=row.calling_ae,
        peer_address=row.peer_address,
        deleted_at=deleted_at,
    )


def study_records(session: Session, query: Select[Study]) -> list[StudyRecord]:
    """Return the studies of a query with their counts: three statements however many there are."""
    rows = session.scalars(query).all()
    if not rows:
        return []
    ids = [row.id for row in rows]
    sizes = _sizes(session, ids)
    modalities = _modalities(session, ids)
    return [
        _study_record(row, sizes.get(row.id, (0, 0)), modalities.get(row.id, ())) for row in rows
    ]


def _sizes(session: Session, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    query = (
        select(Instance.study_id, func.count(), func.sum(Instance.size))
        .where(Instance.study_id.in_(ids), Instance.state == InstanceState.CURRENT.value)
        .group_by(Instance.study_id)
    )
    return {study_id: (count, int(size)) for study_id, count, size in session.execute(query)}


def _modalities(session: Session, ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Return the modality of each series, by study: one entry a series."""
    query = select(Series.study_id, Series.modality).where(Series.study_id.in_(ids))
    found: dict[int, tuple[str, ...]] = {}
    rows: Sequence[Row[int, str]] = session.execute(query).all()
    for study_id, modality in rows:
        found[study_id] = (*found.get(study_id, ()), modality)
    return found


def _study_record(
    row: Study, size: tuple[int, int], series_modalities: Sequence[str]
) -> StudyRecord:
    instances, size_bytes = size
    return StudyRecord(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        state=StudyState(row.state),
        attributes=StudyAttributes(
            patient_id=row.patient_id,
            issuer_of_patient_id=row.issuer_of_patient_id,
            patient_name=row.patient_name,
            patient_birth_date=row.patient_birth_date,
            patient_sex=row.patient_sex,
            accession_number=row.accession_number,
            study_id=row.study_code,
            study_date=row.study_date,
            study_time=row.study_time,
            study_description=row.study_description,
            referring_physician_name=row.referring_physician_name,
        ),
        listener=row.listener,
        calling_ae=row.calling_ae,
        modalities=tuple(sorted({modality for modality in series_modalities if modality})),
        series=len(series_modalities),
        instances=instances,
        size=size_bytes,
        first_received_at=row.first_received_at,
        last_received_at=row.last_received_at,
        complete_after=row.complete_after,
        emptied_at=row.emptied_at,
        evidence=row.evidence,
        reason=row.reason,
        rule_revision=row.rule_revision,
        explanation=row.explanation,
    )
