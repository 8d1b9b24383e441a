"""What is gone by retention, for stores that would need it: refused with date and rule."""

from __future__ import annotations

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from storage.errors import BytesDeletedError
from storage.models import Deletion, Instance, Result, Study
from storage.retention_records import DeletionRecord
from storage.states import DeletionKind, DeletionRule, InstanceState


def refuse_gone_instances(session: Session, study_id: int) -> None:
    """Refuse to read a study of which retention deleted instances.

    Raises:
        BytesDeletedError: with numbers, date and rule.
    """
    told = tell_gone_instances(session, study_id)
    if told:
        raise BytesDeletedError(told)


def refuse_gone_result(session: Session, result_id: int) -> None:
    """Refuse to send a result object that retention deleted.

    Raises:
        BytesDeletedError: with date and rule.
    """
    query = (
        select(Deletion)
        .join(Result, Result.deletion_id == Deletion.id)
        .where(Result.id == result_id)
    )
    row = session.scalars(query).first()
    if row is not None:
        raise BytesDeletedError(f"the result object's {_told(row)}")


def tell_gone_instances(session: Session, study_id: int) -> str:
    """Return in words what retention deleted of a study's current instances, or ""."""
    counts = (
        select(func.count(), func.count(Instance.deletion_id), func.max(Instance.deletion_id))
        .where(Instance.study_id == study_id, Instance.state == InstanceState.CURRENT.value)
        .group_by(Instance.study_id)
    )
    found = session.execute(counts).first()
    if found is None or not found[1]:
        return ""
    total, gone, last = found
    return f"of {gone} of {total} instances the {_told(session.get_one(Deletion, last))}"


def _told(row: Deletion) -> str:
    return f"bytes were deleted by retention on {row.at:%Y-%m-%d %H:%M}Z ({row.rule})"


def deletions() -> Select[Deletion, str | None]:
    """Return the query for deletions with the UID of their study."""
    return select(Deletion, Study.study_instance_uid).outerjoin(
        Study, Deletion.study_id == Study.id
    )


def deletion_record(row: Row[Deletion, str | None]) -> DeletionRecord:
    """Return one row of `deletions` as a record."""
    deletion, study_instance_uid = row
    return DeletionRecord(
        id=deletion.id,
        at=deletion.at,
        kind=DeletionKind(deletion.kind),
        rule=DeletionRule(deletion.rule),
        study_instance_uid=study_instance_uid or "",
        count=deletion.count,
        size=deletion.size,
        finished_at=deletion.finished_at,
    )
