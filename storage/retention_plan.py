"""What retention would delete now, rule by rule, oldest first. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.expired import (
    cutoff_of,
    expired_quarantine,
    expired_results,
    expired_studies,
    kept_instances,
    packs_to_tidy,
)
from storage.leftovers import look_through
from storage.models import Study
from storage.packs import PackStore
from storage.retention_records import Planned, RetentionPolicy
from storage.states import DeletionKind, DeletionRule

STUDY_RULES: Final = (DeletionRule.STUDIES, DeletionRule.FAILED)
RESULT_RULES: Final = (DeletionRule.RESULTS, DeletionRule.FAILED)
QUARANTINE_RULES: Final = (DeletionRule.QUARANTINE, DeletionRule.FAILED)


class RetentionPlan:
    """Looks for what the rules of a policy let go at one moment, in one session."""

    def __init__(
        self, session: Session, packs: PackStore, policy: RetentionPolicy, now: datetime
    ) -> None:
        self._session = session
        self._packs = packs
        self._policy = policy
        self._now = now
        self._here = packs.names()

    def by_time(self) -> Iterator[Planned]:
        """Yield what was kept as long as the policy says."""
        for rule in STUDY_RULES:
            yield from self.studies(rule)
        for rule in RESULT_RULES:
            yield from self._results(rule)
        for rule in QUARANTINE_RULES:
            yield from self._quarantine(rule)
        yield from self.duplicates()

    def for_room(self, free: int, planned: frozenset[int | str] = frozenset()) -> Iterator[Planned]:
        """Yield studies that are done, oldest first, until the disk has the room it is to have."""
        if free >= self._policy.low_bytes:
            return
        needed = self._policy.high_bytes - free
        for item in self.studies(DeletionRule.DISK):
            if needed <= 0:
                return
            if item.key not in planned:
                needed -= item.size
                yield item

    def studies(self, rule: DeletionRule) -> Iterator[Planned]:
        """Yield the studies whose instances a rule lets go; of those only that lie here."""
        cutoff = cutoff_of(self._policy, rule, self._now)
        if cutoff is None:
            return
        for study_id, uid, received in expired_studies(self._session, rule, cutoff):
            kept = [
                (count, size)
                for pack, count, size in kept_instances(self._session, study_id)
                if pack in self._here
            ]
            if kept:
                yield Planned(
                    kind=DeletionKind.INSTANCES,
                    rule=rule,
                    key=study_id,
                    what=uid,
                    since=received,
                    count=sum(count for count, _ in kept),
                    size=sum(size for _, size in kept),
                )

    def _results(self, rule: DeletionRule) -> Iterator[Planned]:
        cutoff = cutoff_of(self._policy, rule, self._now)
        if cutoff is None:
            return
        sizes: dict[int, list[int]] = {}
        for _, study_id, size in self._session.execute(expired_results(rule, cutoff)):
            sizes.setdefault(study_id, []).append(size)
        for study_id, found in sizes.items():
            study = self._session.execute(
                select(Study.study_instance_uid, Study.last_received_at).where(Study.id == study_id)
            ).one()
            yield Planned(
                kind=DeletionKind.RESULTS,
                rule=rule,
                key=study_id,
                what=study[0],
                since=study[1],
                count=len(found),
                size=sum(found),
            )

    def _quarantine(self, rule: DeletionRule) -> Iterator[Planned]:
        cutoff = cutoff_of(self._policy, rule, self._now)
        if cutoff is None:
            return
        for row in self._session.scalars(expired_quarantine(rule, cutoff)):
            if row.pack in self._here:
                yield Planned(
                    kind=DeletionKind.QUARANTINE,
                    rule=rule,
                    key=row.id,
                    what=row.reason,
                    since=row.at,
                    count=1,
                    size=row.length,
                )

    def duplicates(self) -> Iterator[Planned]:
        """Yield packs to look through for bytes without a row; some have none."""
        cutoff = cutoff_of(self._policy, DeletionRule.DUPLICATES, self._now)
        if cutoff is None:
            return
        for name, created, through in packs_to_tidy(self._session, cutoff):
            if self._here.get(name) != through:
                continue  # it is written to, or has no rows yet for all it holds
            spare = look_through(self._session, self._packs, name, through).spare
            yield Planned(
                kind=DeletionKind.DUPLICATES,
                rule=DeletionRule.DUPLICATES,
                key=name,
                what=name,
                since=created,
                count=len(spare),
                size=sum(record.location.length for record in spare),
            )
