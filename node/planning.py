"""From a complete study to its jobs: read the headers the rules ask for, decide, write.

The deciding is `node.routing`, which is pure; this module feeds it and keeps its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import structlog
from pydantic import JsonValue

from node.clock import Clock
from node.routing import (
    Decision,
    InstanceHeaders,
    RuleSet,
    SeriesHeaders,
    StudyHeaders,
    check_references,
    decide,
    parse_rules,
)
from node.sandbox import Deadlines, Sandbox, SandboxCrash, SandboxDeadline, SandboxFailed
from storage.packs import PackStore
from storage.records import InstanceRecord, NewJob, Routing, StudyRecord
from storage.records import JsonValue as StoredJson
from storage.rules import RuleStore
from storage.studies import StudyStore

BATCH: Final = 500
READ_DEADLINES: Final = Deadlines(soft=30, hard=120)
ONE_FILE_DEADLINES: Final = Deadlines(soft=5, hard=10)

log = structlog.get_logger()


class NoRulesError(Exception):
    """No rules can be put in force: none were loaded, or they name what is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleBook:
    """A parsed rule set and the revision it came from."""

    revision: int
    rules: RuleSet


class RuleBooks:
    """The current rules, parsed once per revision."""

    def __init__(self, store: RuleStore) -> None:
        self._store = store
        self._book: RuleBook | None = None

    def current(self) -> RuleBook:
        """Return the rules in force.

        Raises:
            NoRulesError: none were ever saved.
        """
        revision = self._store.current()
        if revision is None:
            raise NoRulesError("no routing rules are loaded")
        if self._book is None or self._book.revision != revision.revision:
            self._book = RuleBook(revision=revision.revision, rules=parse_rules(revision.text))
        return self._book


def read_rules(path: Path, *, engines: frozenset[str], destinations: frozenset[str]) -> RuleSet:
    """Read and check a rules file (invariant 7).

    Raises:
        RulesError: naming the key path.
        NoRulesError: a rule names an engine or destination that is not there.
    """
    rules = parse_rules(path.read_text(encoding="utf-8"))
    problems = check_references(rules, engines, destinations)
    if problems:
        raise NoRulesError(f"{path}: " + "; ".join(problems))
    return rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the rules in force say of one study."""

    revision: int
    decision: Decision
    unreadable: Mapping[str, str]  # SOP Instance UID -> why its header could not be read


class Planner:
    """Decides for studies and writes what was decided."""

    def __init__(
        self,
        *,
        studies: StudyStore,
        packs: PackStore,
        rules: RuleBooks,
        sandbox: Sandbox,
        clock: Clock,
        max_attempts: int,
    ) -> None:
        self._studies = studies
        self._packs = packs
        self._rules = rules
        self._sandbox = sandbox
        self._clock = clock
        self._max_attempts = max_attempts

    def plan(self, study: StudyRecord) -> Plan:
        """Decide for one study, without writing anything.

        Raises:
            NoRulesError, SandboxError: nothing could be decided now.
        """
        book = self._rules.current()
        instances = self._studies.instances(study.id)
        fields = tuple(sorted(book.rules.fields))
        values = self._read(instances, fields)
        decision = decide(
            book.rules,
            _headers(study, instances, values),
            calling_ae=study.calling_ae,
            now=self._clock(),
        )
        unreadable = {uid: str(found["error"]) for uid, found in values.items() if "error" in found}
        return Plan(revision=book.revision, decision=decision, unreadable=unreadable)

    def route(self, study: StudyRecord) -> list[int]:
        """Decide for a complete study and write its jobs, in one transaction."""
        plan = self.plan(study)
        explanation = {
            **plan.decision.explanation,
            "unreadable_instances": dict(plan.unreadable),
        }
        routing = Routing(
            rule_revision=plan.revision,
            jobs=tuple(
                NewJob(
                    rule=job.rule,
                    engine=job.engine,
                    priority=job.priority,
                    series_instance_uids=job.series_instance_uids,
                    destinations=job.destinations,
                )
                for job in plan.decision.jobs
            ),
            explanation=cast("Mapping[str, StoredJson]", explanation),
        )
        jobs = self._studies.route(
            study.id, study.revision, routing, max_attempts=self._max_attempts
        )
        log.info("study.routed", study_id=study.id, revision=study.revision, jobs=len(jobs))
        return jobs

    def rule_quiet_seconds(self, study: StudyRecord) -> float:
        """Return the longest quiet time that a matching rule asks for; 0 if none does (R1)."""
        if not any(rule.quiet_seconds for rule in self._rules.current().rules.rules):
            return 0.0
        return self.plan(study).decision.quiet_seconds or 0.0

    def _read(
        self, instances: Sequence[InstanceRecord], fields: tuple[str, ...]
    ) -> dict[str, Mapping[str, JsonValue]]:
        found: dict[str, Mapping[str, JsonValue]] = {}
        for start in range(0, len(instances), BATCH):
            batch = instances[start : start + BATCH]
            found.update(self._read_batch(batch, fields))
        return found

    def _read_batch(
        self, batch: Sequence[InstanceRecord], fields: tuple[str, ...]
    ) -> Mapping[str, Mapping[str, JsonValue]]:
        try:
            return self._ask(batch, fields, READ_DEADLINES)
        except (SandboxCrash, SandboxDeadline, SandboxFailed):
            log.warning("headers.batch_failed", instances=len(batch))
        return {item.sop_instance_uid: self._read_one(item, fields) for item in batch}

    def _read_one(self, item: InstanceRecord, fields: tuple[str, ...]) -> Mapping[str, JsonValue]:
        """Read one header alone, so that a poisonous one is known and its siblings are not."""
        try:
            return self._ask([item], fields, ONE_FILE_DEADLINES)[item.sop_instance_uid]
        except (SandboxCrash, SandboxDeadline, SandboxFailed) as error:
            return {"error": f"the header could not be read: {error}"}

    def _ask(
        self,
        batch: Sequence[InstanceRecord],
        fields: tuple[str, ...],
        deadlines: Deadlines,
    ) -> dict[str, Mapping[str, JsonValue]]:
        answer = self._sandbox.call(
            "read_values",
            {
                "fields": list(fields),
                "files": [
                    {
                        "path": str(self._packs.path(item.location)),
                        "offset": item.location.offset,
                        "length": item.location.length,
                    }
                    for item in batch
                ],
            },
            deadlines=deadlines,
        )
        files = answer["files"]
        if not isinstance(files, list) or len(files) != len(batch):
            raise SandboxCrash("the answer does not match the question")
        return {
            item.sop_instance_uid: values
            for item, values in zip(batch, files, strict=True)
            if isinstance(values, dict)
        }


def _headers(
    study: StudyRecord,
    instances: Sequence[InstanceRecord],
    values: Mapping[str, Mapping[str, JsonValue]],
) -> StudyHeaders:
    series: dict[str, list[InstanceHeaders]] = {}
    for item in instances:
        found = values[item.sop_instance_uid]
        if "error" in found:
            continue
        series.setdefault(item.series_instance_uid, []).append(
            InstanceHeaders(
                sop_instance_uid=item.sop_instance_uid,
                values={name: _tuple(value) for name, value in found.items()},
            )
        )
    return StudyHeaders(
        study_instance_uid=study.study_instance_uid,
        series=tuple(
            SeriesHeaders(series_instance_uid=uid, instances=tuple(members))
            for uid, members in series.items()
        ),
    )


def _tuple(value: JsonValue) -> tuple[str | int | float, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(item for item in value if isinstance(item, str | int | float))
