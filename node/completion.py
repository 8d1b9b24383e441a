"""Which studies are complete, and on what evidence; then on to routing.

Sweeps over indexed columns: nothing that matters is remembered between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias, cast

import structlog

from node.clock import Clock
from node.completeness import (
    Claim,
    Evidence,
    ExpectedSeries,
    Found,
    Judgement,
    Standing,
    Verdict,
    judge,
)
from node.planning import HeaderEvidence, NoRulesError, Planner
from node.sandbox import SandboxError
from storage.expectations import ExpectationStore, SaidRecord
from storage.records import JsonValue, StorageError, StudyRecord
from storage.states import ExpectationSource, ExpectationState
from storage.studies import StudyStore

QuietTime: TypeAlias = Callable[[str, str], float]
"""(modality, calling AE title) -> seconds after the last instance until a study is complete."""

KEPT_DAYS: Final = 30
AHEAD_SECONDS: Final = 1.0  # before its quiet time is over, the headers of a study are read
LOOK_SECONDS: Final = 2.0  # until a study that waits for something is looked at again
BYTES_DELETED: Final = "BYTES_DELETED"
"""Why a study is not read: retention deleted some of it before more of it came."""
STEADY_SECONDS: Final = 5.0  # without another notification

STANDINGS: Final[Mapping[ExpectationState, Standing]] = {
    ExpectationState.IN_PROGRESS: Standing.IN_PROGRESS,
    ExpectationState.COUNTED: Standing.COUNTED,
    ExpectationState.DISCONTINUED: Standing.DISCONTINUED,
    ExpectationState.NOT_KNOWN: Standing.NOT_KNOWN,
}
"""The first that one of a source's words is in decides how the source stands."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a study is waited for. Seconds.

    `missing` counts from the end of the quiet time, while instances are known to be missing;
    `step` from the last instance, while a procedure step is in progress. `archive` is how long
    after the quiet time the answer of an archive is waited for, 0 where none is asked; `every` is
    how often it is asked: a count that it repeats is believed before the quiet time is over.
    """

    quiet_time: QuietTime
    missing: float
    step: float
    archive: float = 0.0
    every: float = 0.0


class Completion:
    """Closes studies that are complete, or fell quiet, and routes those that are closed."""

    def __init__(
        self,
        *,
        studies: StudyStore,
        expectations: ExpectationStore,
        planner: Planner,
        patience: Patience,
        clock: Clock,
        settled: Callable[[], bool] = lambda: True,
        routed: Callable[[], None] = lambda: None,
    ) -> None:
        """Close studies once `settled` says that what was acknowledged is durable and indexed.

        `routed` is told that there may be jobs.
        """
        self._routed = routed
        self._studies = studies
        self._expectations = expectations
        self._planner = planner
        self._patience = patience
        self._clock = clock
        self._settled = settled
        self._told_no_rules = False

    def sweep(self) -> None:
        """Complete what is due, route what is complete. One bad study stops no other."""
        ahead = timedelta(seconds=AHEAD_SECONDS)
        if not self._expectations.any_to_close_or_route(ahead=ahead):
            return
        if (self._studies.due(limit=1) or self._expectations.counted()) and self._settled():
            for study in self._expectations.counted():
                self._guarded(study, self._complete_early)
            for study in self._studies.due():
                self._guarded(study, self._complete)
        for study in self._studies.to_route():
            self._guarded(study, self._route)
        for study in self._studies.due(ahead=ahead):
            self._guarded(study, self._header_evidence)  # remembered until it is due

    def next_due(self) -> datetime | None:
        """Return when a study falls quiet next, for a sweep to come then; None: none will."""
        return self._expectations.next_due()

    def forget(self) -> None:
        """Remove what was said so long ago that no study waits for it."""
        self._expectations.forget(self._clock() - timedelta(days=KEPT_DAYS))

    def _guarded(self, study: StudyRecord, act: Callable[[StudyRecord], object]) -> None:
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

    # ------------------------------------------------------------ before the quiet time is over

    def _complete_early(self, study: StudyRecord) -> None:
        """Close a study at once if a source that can be believed counted just what is here."""
        said = self._said(study)
        if self._step_holds_until(study, said) is not None:
            return
        believed = [item for item in said if self._is_believed(item)]
        claims = claims_of(believed)
        if not any(claim.total == study.instances for claim in claims):
            return  # the cheap look, before instances and headers
        received = self._expectations.received(study.id)
        if judge(Evidence(received=received, claims=claims)).verdict is not Verdict.COMPLETE:
            return
        judgement = self._judged(study, said, self._header_evidence(study))
        if judgement.verdict is Verdict.COMPLETE and self._expectations.hasten(study):
            self._close(study, judgement, "expected count")

    def _is_believed(self, record: SaidRecord) -> bool:
        """Say whether a count is final, as the list of a procedure step that completed is.

        An archive counts what it has so far: it must repeat its count. Of a study there can be
        several notifications of availability: another one may follow.
        """
        if record.said.source is ExpectationSource.ARCHIVE:
            return (record.said_at - record.since).total_seconds() >= self._patience.every
        if record.said.source is ExpectationSource.AVAILABILITY:
            return (self._clock() - record.since).total_seconds() >= STEADY_SECONDS
        return True

    # ------------------------------------------------------------ when the quiet time is over

    def _complete(self, study: StudyRecord) -> None:
        """Close a study that fell quiet, unless something says that more will come."""
        said = self._said(study)
        quiet_until = study.last_received_at + timedelta(seconds=self._quiet_seconds(study))
        holds = self._step_holds_until(study, said) or self._answer_holds_until(
            study, said, quiet_until
        )
        if holds is not None:
            self._look_again(study, holds)
            return
        headers = self._header_evidence(study)
        rule_quiet_until = study.last_received_at + timedelta(seconds=headers.quiet_seconds)
        if rule_quiet_until > self._clock():
            self._studies.postpone(study.id, study.revision, rule_quiet_until)
            return
        quiet_until = max(quiet_until, rule_quiet_until)
        judgement = self._judged(study, said, headers)
        wait_until = quiet_until + timedelta(seconds=self._patience.missing)
        if judgement.verdict is Verdict.KNOWN_MISSING and wait_until > self._clock():
            self._tell_waiting(study, judgement, wait_until)
            self._look_again(study, wait_until)
            return
        self._close(study, judgement, "quiet time")

    def _step_holds_until(self, study: StudyRecord, said: Iterable[SaidRecord]) -> datetime | None:
        """Return until when a procedure step in progress holds a study; None: none does."""
        begun = [item.since for item in said if item.said.state is ExpectationState.IN_PROGRESS]
        if not begun:
            return None
        last = max(*begun, study.last_received_at)
        until = last + timedelta(seconds=self._patience.step)
        return until if until > self._clock() else None

    def _answer_holds_until(
        self, study: StudyRecord, said: Iterable[SaidRecord], quiet_until: datetime
    ) -> datetime | None:
        """Return until when the archive's answer about the last instance is waited for."""
        until = quiet_until + timedelta(seconds=self._patience.archive)
        answered = any(
            item.said.source is ExpectationSource.ARCHIVE and item.said_at >= study.last_received_at
            for item in said
        )
        return None if answered or until <= self._clock() else until

    def _look_again(self, study: StudyRecord, until: datetime) -> None:
        soon = self._clock() + timedelta(seconds=LOOK_SECONDS)
        self._studies.postpone(study.id, study.revision, min(soon, until))

    def _tell_waiting(self, study: StudyRecord, judgement: Judgement, until: datetime) -> None:
        details = {"until": until.isoformat(timespec="seconds"), **judgement.shown()}
        if self._expectations.tell_waiting(study, _stored(details)):
            log.info("study.waits", study_id=study.id, revision=study.revision)

    def _quiet_seconds(self, study: StudyRecord) -> float:
        modalities = study.modalities or ("",)
        return max(self._patience.quiet_time(item, study.calling_ae) for item in modalities)

    # ------------------------------------------------------------ evidence

    def _said(self, study: StudyRecord) -> Sequence[SaidRecord]:
        uid = study.study_instance_uid
        return self._expectations.of([uid]).get(uid, ())

    def _header_evidence(self, study: StudyRecord) -> HeaderEvidence:
        try:
            return self._planner.evidence(study)
        except SandboxError as error:
            log.warning("study.headers_unread", study_id=study.id, error=type(error).__name__)
            return HeaderEvidence()  # complete it: routing then fails it in the open, with reason

    def _judged(
        self, study: StudyRecord, said: Iterable[SaidRecord], headers: HeaderEvidence
    ) -> Judgement:
        return judge(
            Evidence(
                received=self._expectations.received(study.id),
                claims=claims_of(said),
                gaps=headers.gaps,
                waited_for=headers.waited_for,
            )
        )

    def _close(self, study: StudyRecord, judgement: Judgement, kind: str) -> None:
        quiet_for = (self._clock() - study.last_received_at).total_seconds()
        evidence: Found = {
            **judgement.shown(),
            "kind": kind,
            "quiet_seconds": round(quiet_for, 3),
            "open_associations": 0,
            "series": study.series,
            "instances": study.instances,
        }
        if self._studies.complete(study.id, study.revision, _stored(evidence)):
            verdict = judgement.verdict.value
            log.info("study.completed", study_id=study.id, revision=study.revision, verdict=verdict)

    def _route(self, study: StudyRecord) -> None:
        """Route what is whole. Results of a part would supersede those of the whole."""
        gone = self._studies.gone(study.id)
        if gone:
            log.error("study.not_routed", study_id=study.id, reason=BYTES_DELETED)
            reason = f"{BYTES_DELETED}: {gone}; earlier results stand. To have it read again, "
            reason += "send the whole study again"
            self._studies.fail_routing(study.id, study.revision, reason, code=BYTES_DELETED)
            return
        self._planner.route(study)
        self._routed()


def claims_of(said: Iterable[SaidRecord]) -> list[Claim]:
    """Return what was said as claims, one a source: the steps of a study together make one.

    Of several steps, one in progress leaves the whole open, and those that completed count.
    """
    by_source: dict[ExpectationSource, list[SaidRecord]] = {}
    for record in said:
        by_source.setdefault(record.said.source, []).append(record)
    return [_claim(source, records) for source, records in by_source.items()]


def _claim(source: ExpectationSource, records: Sequence[SaidRecord]) -> Claim:
    states = {record.said.state for record in records}
    standing = next(standing for state, standing in STANDINGS.items() if state in states)
    counted = [item for item in records if item.said.state is ExpectationState.COUNTED]
    named: dict[str, set[str]] = {}
    instances: dict[str, int] = {}
    for record in counted:
        for uid, series in record.said.series.items():
            named.setdefault(uid, set()).update(series.sop_instance_uids)
            instances[uid] = max(len(named[uid]), instances.get(uid, 0), series.instances)
    return Claim(
        source=source.value,
        standing=standing,
        instances=next((item.said.instances for item in counted), None),
        series={
            uid: ExpectedSeries(instances=number, sop_instance_uids=frozenset(named[uid]))
            for uid, number in instances.items()
        },
        why="; ".join(sorted({item.said.note for item in records if item.said.note})),
        at=max(item.said_at for item in records).isoformat(timespec="seconds"),
    )


def _stored(found: Found) -> Mapping[str, JsonValue]:
    return cast("Mapping[str, JsonValue]", found)
