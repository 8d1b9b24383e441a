"""From a complete study to its jobs: read the headers the rules ask for, decide, write.

The deciding is `node.routing`, which is pure; this module feeds it and keeps its answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias, cast

import structlog
from pydantic import JsonValue

from node.clock import Clock
from node.conditions import Values, number_of
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
from node.slice_positions import Gap, Slice, gaps_of
from storage.packs import PackStore
from storage.records import InstanceRecord, NewJob, Routing, StudyRecord
from storage.records import JsonValue as StoredJson
from storage.rules import RuleStore
from storage.studies import StudyStore

BATCH: Final = 500
POSITION: Final = "ImagePositionPatient"
ORIENTATION: Final = "ImageOrientationPatient"
NUMBER: Final = "InstanceNumber"
GEOMETRY: Final = frozenset({POSITION, ORIENTATION, NUMBER})
MOST_REMEMBERED: Final = 256
READ_DEADLINES: Final = Deadlines(soft=30, hard=120)
ONE_FILE_DEADLINES: Final = Deadlines(soft=5, hard=10)

Held: TypeAlias = tuple[int, int, int, datetime, int]
"""What a study's headers, and what follows from them, are of: its instances, and the rules."""

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
    gaps: tuple[Gap, ...]
    unreadable: Mapping[str, str]  # SOP Instance UID -> why its header could not be read


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderEvidence:
    """What the headers of a study say about whether it is complete.

    `quiet_seconds` is the longest quiet time that a matching rule asks for, 0 if none does (R1);
    `waited_for` are rules that require a complete study and whose series is absent.
    """

    quiet_seconds: float = 0.0
    gaps: tuple[Gap, ...] = ()
    waited_for: tuple[str, ...] = ()


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
        self._read_last: tuple[Held, StudyHeaders, Mapping[str, str]] | None = None
        self._evidence: OrderedDict[Held, HeaderEvidence] = OrderedDict()

    def plan(self, study: StudyRecord) -> Plan:
        """Decide for one study, without writing anything.

        Raises:
            NoRulesError, SandboxError: nothing could be decided now.
        """
        book = self._rules.current()
        headers, unreadable = self._headers(study, book)
        decision = decide(
            book.rules,
            headers,
            calling_ae=study.calling_ae,
            now=self._clock(),
            verdict=str(study.evidence.get("verdict", "")),
        )
        gaps = tuple(
            gap
            for series in headers.series
            for gap in gaps_of(series.series_instance_uid, [*map(_slice, series.instances)])
        )
        return Plan(revision=book.revision, decision=decision, gaps=gaps, unreadable=unreadable)

    def evidence(self, study: StudyRecord) -> HeaderEvidence:
        """Return what the study's headers say; they are read again only if it received more.

        Raises:
            NoRulesError, SandboxError: nothing could be said now.
        """
        held = _held(study, self._rules.current())
        found = self._evidence.get(held)
        if found is None:
            plan = self.plan(study)
            found = self._evidence[held] = HeaderEvidence(
                quiet_seconds=plan.decision.quiet_seconds or 0.0,
                gaps=plan.gaps,
                waited_for=plan.decision.waited_for,
            )
            if len(self._evidence) > MOST_REMEMBERED:
                self._evidence.popitem(last=False)
        return found

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

    def _headers(
        self, study: StudyRecord, book: RuleBook
    ) -> tuple[StudyHeaders, Mapping[str, str]]:
        """Read the headers of a study, once for completeness and routing together.

        Returns them, and by SOP Instance UID why one could not be read.
        """
        held = _held(study, book)
        if self._read_last is None or self._read_last[0] != held:
            everything = self._studies.instances(study.id)
            instances = [item for item in everything if item.deletion_id is None]
            values = self._read(instances, tuple(sorted(book.rules.fields | GEOMETRY)))
            unreadable = {
                uid: str(found["error"]) for uid, found in values.items() if "error" in found
            }
            self._read_last = (held, _study_headers(study, instances, values), unreadable)
        return self._read_last[1], self._read_last[2]

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


def _study_headers(
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


def _held(study: StudyRecord, book: RuleBook) -> Held:
    return (study.id, study.revision, study.instances, study.last_received_at, book.revision)


def _slice(instance: InstanceHeaders) -> Slice:
    numbers = _numbers(instance.values.get(NUMBER))
    return Slice(
        position=_numbers(instance.values.get(POSITION)) or None,
        orientation=_numbers(instance.values.get(ORIENTATION)) or None,
        instance_number=int(numbers[0]) if numbers else None,
    )


def _numbers(values: Values) -> tuple[float, ...]:
    """Return values as finite numbers; none of them, where one is no number."""
    found = [number_of(value) for value in values or ()]
    numbers = tuple(float(number) for number in found if number is not None)
    return numbers if len(numbers) == len(found) else ()
