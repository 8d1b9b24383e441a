"""Conservation: every acknowledged instance is in exactly one place (invariant 14)."""

from __future__ import annotations

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from storage.models import Instance, Quarantine, Receipt, Study
from storage.records import Conservation
from storage.states import InstanceState


def count_instances(session: Session) -> Conservation:
    """Count what was acknowledged, and where it is; the session must see one moment."""
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
        not_indexed=receipts.get("not_indexed", 0),
    )


def _count_by(session: Session, query: Select[str, int], column: object) -> dict[str, int]:
    rows = session.execute(query.group_by(column))  # type: ignore[arg-type]  # any mapped column
    return {state: count for state, count in rows}  # noqa: C416 - rows are not tuples to mypy
