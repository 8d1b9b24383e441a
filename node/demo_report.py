"""What the demo tells: tables for people, one JSON object for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import JsonValue
from rich.markup import escape
from rich.table import Table

from node.demo_data import DemoStudy
from storage.records import DeliveryRecord, JobRecord, ResultRecord, StudyRecord
from storage.states import DeliveryState, JobState, StudyState

DELIVERED: Final = frozenset({DeliveryState.SENT, DeliveryState.WARNED, DeliveryState.CONFIRMED})
GOOD_JOBS: Final = frozenset({JobState.SUCCEEDED, JobState.REFUSED})
UNITS: Final = {"[hnsf'U]": "HU"}  # UCUM to what is read aloud
STAGES: Final = ("sent", "complete", "routed", "analysed", "delivered")


@dataclass(slots=True, kw_only=True)
class Progress:
    """One study under way. `seconds` holds the time of each stage that ended."""

    study: DemoStudy
    study_instance_uid: str = ""
    refused: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the node holds of one study when the demo ends."""

    progress: Progress
    record: StudyRecord | None
    jobs: Sequence[JobRecord]
    results: Sequence[ResultRecord]
    deliveries: Sequence[DeliveryRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """All that happened, for people and for programs."""

    outcomes: tuple[Outcome, ...]
    files: Mapping[str, Path]  # SOP Instance UID of a result -> its copy in the output folder
    seconds: Mapping[str, float]

    @property
    def succeeded(self) -> bool:
        """Whether every study that a rule wanted was analysed (or refused aloud) and delivered."""
        return all(_good(outcome) for outcome in self.outcomes)

    def as_json(self) -> dict[str, JsonValue]:
        """Return the report as one JSON object."""
        return {
            "studies": [_study_json(outcome) for outcome in self.outcomes],
            "jobs": [_job_json(job) for outcome in self.outcomes for job in outcome.jobs],
            "results": [
                {
                    "study_instance_uid": result.study_instance_uid,
                    "sop_class_uid": result.sop_class_uid,
                    "sop_instance_uid": result.sop_instance_uid,
                    "path": str(self.files.get(result.sop_instance_uid, "")),
                }
                for outcome in self.outcomes
                for result in outcome.results
            ],
            "deliveries": [
                {
                    "sop_instance_uid": delivery.sop_instance_uid,
                    "destination": delivery.destination,
                    "state": delivery.state.value,
                    "attempts": delivery.attempts,
                    "status": delivery.status,
                }
                for outcome in self.outcomes
                for delivery in outcome.deliveries
            ],
            "seconds": dict(self.seconds),
        }


def _good(outcome: Outcome) -> bool:
    if outcome.record is None or outcome.progress.refused or outcome.progress.problem:
        return False
    if outcome.record.state is StudyState.FAILED:
        return False
    jobs = all(job.state in GOOD_JOBS for job in outcome.jobs)
    return jobs and all(item.state in DELIVERED for item in outcome.deliveries)


def _study_json(outcome: Outcome) -> dict[str, JsonValue]:
    record = outcome.record
    return {
        "name": outcome.progress.study.name,
        "source": outcome.progress.study.source,
        "genuine": outcome.progress.study.genuine,
        "study_instance_uid": outcome.progress.study_instance_uid,
        "state": record.state.value if record else "unknown",
        "instances": record.instances if record else 0,
        "problem": outcome.progress.problem,
        "seconds": {key: round(value, 3) for key, value in outcome.progress.seconds.items()},
    }


def _job_json(job: JobRecord) -> dict[str, JsonValue]:
    return {
        "study_instance_uid": job.study_instance_uid,
        "rule": job.rule,
        "engine": job.engine,
        "state": job.state.value,
        "attempts": job.attempts,
        "error": job.error,
        "summary": dict(job.summary),  # type: ignore[arg-type]  # the same JSON, read-only mappings
        "seconds": dict(job.timings),
    }


def progress_table(rows: Sequence[Progress]) -> Table:
    """Show how far each study is."""
    table = Table("study", *STAGES, "")
    for row in rows:
        marks = ["yes" if stage in row.done else "..." for stage in STAGES]
        table.add_row(row.study.name, *marks, row.problem)
    return table


def result_table(outcomes: Sequence[Outcome]) -> Table:
    """Lay out study, rule, engine, findings, results and deliveries: a section a study."""
    table = Table("study", "rule", "engine", "finding", "values", "results", "delivered")
    for outcome in outcomes:
        for row in _rows(outcome):
            table.add_row(*map(escape, row))
        table.add_section()
    return table


def _rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    name = outcome.progress.study.name
    if not outcome.jobs:
        state = outcome.record.state.value if outcome.record else "unknown"
        yield (name, "", "", f"{state} {outcome.progress.problem}", "", "", "")
    for job in outcome.jobs:
        findings = _findings(job)
        results = [item.writer for item in outcome.results if item.job_id == job.id]
        delivered = _delivered(item for item in outcome.deliveries if item.job_id == job.id)
        rule = f"{job.rule} (r{job.rule_revision})"
        for line in range(max(len(findings), len(results), 1)):
            head = (name, rule, job.engine) if line == 0 else ("", "", "")
            finding = findings[line] if line < len(findings) else ("", "")
            result = results[line] if line < len(results) else ""
            yield (*head, *finding, result, delivered if line == 0 else "")


def _findings(job: JobRecord) -> list[tuple[str, str]]:
    """Return a line for each finding: what, and its values."""
    if job.error:
        return [(job.state.value, job.error)]
    verdict = str(job.summary.get("verdict", ""))
    if verdict == "not analysed":
        return [(verdict, str(job.summary.get("detail", "")))]
    findings = job.summary.get("findings")
    lines = [
        (str(finding["label"]), _values(finding.get("measurements")))
        for finding in (findings if isinstance(findings, list) else [])
        if isinstance(finding, Mapping)
    ]
    return lines or [(verdict, "")]


def _values(measurements: object) -> str:
    if not isinstance(measurements, list):
        return ""
    return ", ".join(
        f"{str(item['derivation'] or item['name']).lower()} {item['value']:.1f} "
        f"{UNITS.get(item['unit'], item['unit'])}"
        for item in measurements
    )


def _delivered(deliveries: Iterable[DeliveryRecord]) -> str:
    counts = Counter(f"{item.state.value} to {item.destination}" for item in deliveries)
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def stage_seconds(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Add up the stages over all studies."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(_times(outcome))
    return {stage: round(seconds, 3) for stage, seconds in total.items()}


def _times(outcome: Outcome) -> dict[str, float]:
    times: dict[str, float] = dict(outcome.progress.seconds)
    record = outcome.record
    if record is None:
        return times
    if outcome.jobs:
        created = min(job.created_at for job in outcome.jobs)
        times["quiet and routing"] = (created - record.last_received_at).total_seconds()
    for job in outcome.jobs:
        if job.started_at is not None:
            waited = (job.started_at - job.created_at).total_seconds()
            times["queued"] = times.get("queued", 0.0) + waited
        for stage, seconds in job.timings.items():
            times[stage] = times.get(stage, 0.0) + seconds
    ends = [item.finished_at for item in outcome.deliveries if item.finished_at is not None]
    if ends:
        began = min(item.created_at for item in outcome.deliveries)
        times["delivery"] = (max(ends) - began).total_seconds()
    return times


def times_table(outcomes: Sequence[Outcome]) -> Table:
    """Show the seconds of each stage, a column a study."""
    stages = list(dict.fromkeys(stage for outcome in outcomes for stage in _times(outcome)))
    table = Table("seconds", *(outcome.progress.study.name for outcome in outcomes))
    for stage in stages:
        cells = [_times(outcome).get(stage) for outcome in outcomes]
        table.add_row(stage, *("" if cell is None else f"{cell:.2f}" for cell in cells))
    return table
