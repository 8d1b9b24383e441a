"""What waits to be read, by who sent it: for fairness between sources."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import exists, func, or_, select

from storage.database import Database
from storage.models import Instance, Job, Study
from storage.states import InstanceState, JobState, StudyState


class WaitingStore:
    """Counts what was received and is not read yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bytes_by_source(self) -> Mapping[str, int]:
        """Return, by calling AE title, the bytes of studies not routed, or with open jobs."""
        open_states = (JobState.QUEUED.value, JobState.RUNNING.value)
        open_job = exists().where(Job.study_id == Study.id, Job.state.in_(open_states))
        unrouted = (StudyState.RECEIVING.value, StudyState.COMPLETE.value)
        query = (
            select(Study.calling_ae, func.sum(Instance.size))
            .join(Instance, Instance.study_id == Study.id)
            .where(
                Instance.state == InstanceState.CURRENT.value,
                or_(Study.state.in_(unrouted), open_job),
            )
            .group_by(Study.calling_ae)
        )
        with self._database.reading() as session:
            return {source: int(size) for source, size in session.execute(query)}
