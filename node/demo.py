"""`wetread demo`: a complete node, a stand-in PACS, and real studies through both."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from pydantic import JsonValue
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from node.app import Node
from node.delivery.dimse import DimseTarget, DimseTargetSettings
from node.demo_data import DemoDataError, DemoStudy, demo_studies, folder_study
from node.demo_pictures import overlay
from node.interfaces import SendVerdict, Sent
from node.pacs import StandInPacs
from node.settings import Settings
from storage.records import DeliveryRecord, JobRecord, NotFoundError, ResultRecord, StudyRecord
from storage.states import DeliveryState, JobState, StudyState

PATIENCE_SECONDS: Final = 900.0
POLL_SECONDS: Final = 0.2
DELIVERED: Final = frozenset({DeliveryState.SENT, DeliveryState.WARNED, DeliveryState.CONFIRMED})
ENDED_JOBS: Final = frozenset(
    {JobState.SUCCEEDED, JobState.REFUSED, JobState.FAILED, JobState.DEAD, JobState.SUPERSEDED}
)
GOOD_JOBS: Final = frozenset({JobState.SUCCEEDED, JobState.REFUSED})
SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
UNITS: Final = {"[hnsf'U]": "HU"}  # UCUM to what is read aloud
STAGES: Final = ("sent", "complete", "routed", "analysed", "delivered")

RULES: Final = """
[[rules]]
name = "every-ct"
owner = "demo"
priority = "routine"
trigger = "series"
engines = ["ct-body-composition"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "CT", level = "series"}
"""


class DemoError(Exception):
    """The demo could not run; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line asked for."""

    folder: Path | None
    data_dir: Path | None
    output: Path


@dataclass(slots=True, kw_only=True)
class _Progress:
    """One study under way. `seconds` holds the time of each stage that ended."""

    study: DemoStudy
    study_instance_uid: str = ""
    refused: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What the node holds of one study when the demo ends."""

    progress: _Progress
    record: StudyRecord | None
    jobs: Sequence[JobRecord]
    results: Sequence[ResultRecord]
    deliveries: Sequence[DeliveryRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """All that happened, for people and for programs."""

    outcomes: tuple[_Outcome, ...]
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


class Demo:
    """Owns the node, the stand-in PACS and the folders of one demo run."""

    def __init__(self, options: DemoOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._started = time.monotonic()

    def __enter__(self) -> Demo:
        """Start the stand-in PACS and the node."""
        folder = self._options.data_dir
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="wetread-demo-")
            folder = Path(self._temporary.name)
        self._folder = folder.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._pacs = StandInPacs(self._folder / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
        self._pacs.start()
        self._node = Node(self._settings())
        try:
            self._node.start()
        except BaseException:
            self._pacs.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both and remove the temporary folder."""
        self._node.stop()
        self._pacs.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def admin_address(self) -> str:
        """Return where the admin page is."""
        if self._node.admin is None:
            return "off"
        return f"http://127.0.0.1:{self._node.admin.port}/"

    def run(self) -> DemoReport:
        """Send every study, follow each to its end, write pictures and tables."""
        studies = self._studies()
        rows = [_Progress(study=study) for study in studies]
        self._console.print(f"node: {self._node.listeners[0].address()}", markup=False)
        self._console.print(f"PACS: {self._pacs.address()}", markup=False)
        with Live(console=self._console, refresh_per_second=5) as live:
            for row in rows:
                self._send(row)
                live.update(_progress_table(rows))
            self._follow(rows, live)
        return self._report(rows)

    def _settings(self) -> Settings:
        rules = self._folder / "rules.toml"
        rules.write_text(RULES, encoding="utf-8")
        return Settings.model_validate(
            {
                "node": {
                    "name": "DEMO",
                    "serial_number": "DEMO",
                    "data_dir": str(self._folder / "node"),
                },
                "listeners": {
                    "dimse": {
                        "ae_titles": ["WETREAD"],
                        "host": "127.0.0.1",
                        "port": 0,
                        "allow_any_peer": True,
                    }
                },
                "destinations": {
                    "pacs": {
                        "kind": "dimse",
                        "host": "127.0.0.1",
                        "port": self._pacs.port,
                        "ae_title": "PACS",
                        "calling_ae_title": "WETREAD",
                    }
                },
                "completion": {"quiet_seconds": 1.0, "sweep_seconds": 0.3},
                "admin": {"enabled": True, "host": "127.0.0.1", "port": 0},
                "rules": {"file": str(rules)},
            }
        )

    def _studies(self) -> Sequence[DemoStudy]:
        try:
            if self._options.folder is None:
                studies = demo_studies(self._folder / "input")
            else:
                studies = folder_study(self._options.folder)
        except DemoDataError as error:
            raise DemoError(str(error)) from error
        if not studies:
            raise DemoError(f"{self._options.folder}: holds no DICOM file")
        return studies

    def _send(self, row: _Progress) -> None:
        began = time.monotonic()
        files = row.study.outgoing()
        if not files:
            raise DemoError(f"{row.study.name}: holds no DICOM file")
        row.study_instance_uid = row.study.study_instance_uid

        def report(_: int, sent: Sent) -> None:
            if sent.verdict not in {SendVerdict.ACCEPTED, SendVerdict.WARNED}:
                row.refused.append(sent.message)

        self._sender().send(files, report)
        row.seconds["sent"] = time.monotonic() - began
        row.done.add("sent")
        if row.refused:
            row.problem = f"{len(row.refused)} of {len(files)} refused: {row.refused[0]}"

    def _sender(self) -> DimseTarget:
        address = self._node.listeners[0].address()
        port = int(address.rpartition(":")[2])
        return DimseTarget(
            DimseTargetSettings(
                host="127.0.0.1", port=port, ae_title="WETREAD", calling_ae_title="DEMO-CT"
            )
        )

    def _follow(self, rows: Sequence[_Progress], live: Live) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            open_rows = [row for row in rows if not self._ended(row)]
            live.update(_progress_table(rows))
            if not open_rows:
                return
            time.sleep(POLL_SECONDS)
        for row in rows:
            if "delivered" not in row.done and not row.problem:
                row.problem = f"did not end within {PATIENCE_SECONDS:g} s"

    def _ended(self, row: _Progress) -> bool:
        stores = self._node.stores
        try:
            record = stores.studies.get(row.study_instance_uid)
        except NotFoundError:
            row.problem = row.problem or "the node does not know the study"
            return True
        if record.state is StudyState.RECEIVING:
            return False
        row.done.add("complete")
        if record.state is StudyState.COMPLETE:
            return False
        row.done.add("routed")
        jobs = stores.jobs.list(study_id=record.id)
        if any(job.state not in ENDED_JOBS for job in jobs):
            return False
        row.done.add("analysed")
        deliveries = stores.deliveries.list(study_id=record.id)
        waiting = {DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.PARKED}
        if any(item.state in waiting for item in deliveries):
            return False
        row.done.add("delivered")
        return True

    def _report(self, rows: Sequence[_Progress]) -> DemoReport:
        outcomes = tuple(self._outcome(row) for row in rows)
        files = self._write_output(outcomes)
        report = DemoReport(
            outcomes=outcomes,
            files=files,
            seconds={
                **_stage_seconds(outcomes),
                "total": round(time.monotonic() - self._started, 3),
            },
        )
        self._console.print(_result_table(outcomes))
        self._console.print(_times_table(outcomes))
        self._console.print(f"pictures, SEG and SR: {self._options.output.resolve()}", markup=False)
        return report

    def _outcome(self, row: _Progress) -> _Outcome:
        stores = self._node.stores
        try:
            record = stores.studies.get(row.study_instance_uid)
        except NotFoundError:
            return _Outcome(progress=row, record=None, jobs=(), results=(), deliveries=())
        return _Outcome(
            progress=row,
            record=record,
            jobs=stores.jobs.list(study_id=record.id),
            results=stores.jobs.results(study_id=record.id),
            deliveries=stores.deliveries.list(study_id=record.id),
        )

    def _write_output(self, outcomes: Sequence[_Outcome]) -> dict[str, Path]:
        """Copy what the PACS holds now, and draw it: the files prove the whole way there."""
        self._options.output.mkdir(parents=True, exist_ok=True)
        held = {
            instance.sop_instance_uid: instance.path
            for study in self._pacs.listing()
            for series in study.series
            for instance in series.instances
        }
        files: dict[str, Path] = {}
        for outcome in outcomes:
            sources = outcome.progress.study.paths()
            for result in outcome.results:
                if result.sop_instance_uid not in held:
                    continue
                name = f"{outcome.progress.study.name}-{result.writer}-{result.job_id}"
                target = self._options.output / f"{name}.dcm"
                shutil.copyfile(held[result.sop_instance_uid], target)
                files[result.sop_instance_uid] = target.resolve()
                if result.sop_class_uid == SEGMENTATION:
                    overlay(target, sources, self._options.output / f"{name}.png")
        return files


def _good(outcome: _Outcome) -> bool:
    if outcome.record is None or outcome.progress.refused or outcome.progress.problem:
        return False
    if outcome.record.state is StudyState.FAILED:
        return False
    jobs = all(job.state in GOOD_JOBS for job in outcome.jobs)
    return jobs and all(item.state in DELIVERED for item in outcome.deliveries)


def _study_json(outcome: _Outcome) -> dict[str, JsonValue]:
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


def _progress_table(rows: Sequence[_Progress]) -> Table:
    table = Table("study", *STAGES, "")
    for row in rows:
        marks = ["yes" if stage in row.done else "..." for stage in STAGES]
        table.add_row(row.study.name, *marks, row.problem)
    return table


def _result_table(outcomes: Sequence[_Outcome]) -> Table:
    """Lay out study, rule, engine, findings, results and deliveries: a section a study."""
    table = Table("study", "rule", "engine", "finding", "values", "results", "delivered")
    for outcome in outcomes:
        for row in _rows(outcome):
            table.add_row(*map(escape, row))
        table.add_section()
    return table


def _rows(outcome: _Outcome) -> Iterator[tuple[str, ...]]:
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


def _stage_seconds(outcomes: Sequence[_Outcome]) -> dict[str, float]:
    """Add up the stages over all studies."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(_times(outcome))
    return {stage: round(seconds, 3) for stage, seconds in total.items()}


def _times(outcome: _Outcome) -> dict[str, float]:
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


def _times_table(outcomes: Sequence[_Outcome]) -> Table:
    stages = list(dict.fromkeys(stage for outcome in outcomes for stage in _times(outcome)))
    table = Table("seconds", *(outcome.progress.study.name for outcome in outcomes))
    for stage in stages:
        cells = [_times(outcome).get(stage) for outcome in outcomes]
        table.add_row(stage, *("" if cell is None else f"{cell:.2f}" for cell in cells))
    return table
