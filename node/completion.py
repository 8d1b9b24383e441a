"""Which studies are complete, and on what evidence; then on to routing.

A sweep over an indexed column: nothing is remembered between two sweeps.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog

from node.clock import Clock
from node.planning import NoRulesError, Planner
from node.sandbox import SandboxError
from storage.records import JsonValue, StorageError, StudyRecord
from storage.studies import StudyStore

log = structlog.get_logger()


class Completion:
    """Closes studies that fell quiet and routes those that are closed."""

    def __init__(
        self,
        *,
        studies: StudyStore,
        planner: Planner,
        clock: Clock,
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        """Close studies once `settled` says that what was acknowledged is durable and indexed."""
        self._studies = studies
        self._planner = planner
        self._clock = clock
        self._settled = settled
        self._told_no_rules = False

    def sweep(self) -> None:
        """Complete what is due, route what is complete. One bad study stops no other."""
        if self._studies.due(limit=1) and self._settled():
            for study in self._studies.due():
                self._guarded(study, self._complete)
        for study in self._studies.to_route():
            self._guarded(study, self._route)

    def _guarded(self, study: StudyRecord, act: Callable[[StudyRecord], None]) -> None:
        try:
            act(study)
        except NoRulesError as error:
            if not self._told_no_rules:  # once, not at every sweep
                log.error("study.waits_for_rules", study_id=study.id, reason=str(error))
            self._told_no_rules = True
        except SandboxError as error:
            log.error("study.not_routed", study_id=study.id, error=type(error).__name__)
            self._studies.fail_routing(study.id, study.revision, f"{error}"[:500])
        except StorageError as error:
            log.error("study.not_swept", study_id=study.id, error=type(error).__name__)

    def _complete(self, study: StudyRecord) -> None:
        until = study.last_received_at + timedelta(seconds=self._rule_quiet_seconds(study))
        if until > self._clock():
            self._studies.postpone(study.id, study.revision, until)
            return
        quiet_for = (self._clock() - study.last_received_at).total_seconds()
        evidence: dict[str, JsonValue] = {
            "kind": "quiet time",
            "quiet_seconds": round(quiet_for, 3),
            "open_associations": 0,
            "series": study.series,
            "instances": study.instances,
        }
        if self._studies.complete(study.id, study.revision, evidence):
            log.info("study.completed", study_id=study.id, revision=study.revision)

    def _rule_quiet_seconds(self, study: StudyRecord) -> float:
        try:
            return self._planner.rule_quiet_seconds(study)
        except SandboxError as error:
            log.warning("study.headers_unread", study_id=study.id, error=type(error).__name__)
            return 0.0  # complete it: routing then fails it in the open, with the reason

    def _route(self, study: StudyRecord) -> None:
        self._planner.route(study)
