"""`wetread demo`: a complete node, a stand-in PACS, and real studies through both."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from PIL import Image
from pydicom import dcmread
from rich.console import Console
from rich.live import Live

from engines.package import load_package
from node.app import Node
from node.delivery.dimse import DimseTarget, DimseTargetSettings
from node.demo_data import DemoDataError, DemoStudy, demo_studies, folder_study
from node.demo_pictures import overlay
from node.demo_report import (
    DemoReport,
    Outcome,
    Progress,
    progress_table,
    result_table,
    stage_seconds,
    times_table,
)
from node.interfaces import SendVerdict, Sent
from node.pacs import StandInPacs
from node.settings import Settings
from storage.records import NotFoundError
from storage.states import DeliveryState, JobState, StudyState

PATIENCE_SECONDS: Final = 900.0
POLL_SECONDS: Final = 0.2
ENDED_JOBS: Final = frozenset(
    {JobState.SUCCEEDED, JobState.REFUSED, JobState.FAILED, JobState.DEAD, JobState.SUPERSEDED}
)
SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
ENGINE: Final = "ct-body-composition"
RULES: Final = """
[[rules]]
name = "every-series"
owner = "demo"
priority = "routine"
trigger = "series"
engines = ["{engine}"]
destinations = ["pacs"]
conditions = {{field = "Modality", {modality}, level = "series"}}
"""
EVERY_CT: Final = 'op = "equals", value = "CT"'
EVERY_SERIES: Final = 'op = "exists"'


class DemoError(Exception):
    """The demo could not run; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line asked for; without an `engine` it is the shipped one, on CT."""

    folder: Path | None
    engine: Path | None = None
    data_dir: Path | None
    output: Path


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
        rows = [Progress(study=study) for study in studies]
        self._console.print(f"node: {self._node.listeners[0].address()}", markup=False)
        self._console.print(f"PACS: {self._pacs.address()}", markup=False)
        with Live(console=self._console, refresh_per_second=5) as live:
            for row in rows:
                self._send(row)
                live.update(progress_table(rows))
            self._follow(rows, live)
        return self._report(rows)

    def _settings(self) -> Settings:
        rules = self._folder / "rules.toml"
        package = None if self._options.engine is None else load_package(self._options.engine)
        name, modality = (ENGINE, EVERY_CT) if package is None else (package.name, EVERY_SERIES)
        rules.write_text(RULES.format(engine=name, modality=modality), encoding="utf-8")
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
                        **({} if package is None else {"profile": "full"}),
                    }
                },
                "engines": {"folders": [] if package is None else [str(package.folder.parent)]},
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

    def _send(self, row: Progress) -> None:
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

    def _follow(self, rows: Sequence[Progress], live: Live) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            open_rows = [row for row in rows if not self._ended(row)]
            live.update(progress_table(rows))
            if not open_rows:
                return
            time.sleep(POLL_SECONDS)
        for row in rows:
            if "delivered" not in row.done and not row.problem:
                row.problem = f"did not end within {PATIENCE_SECONDS:g} s"

    def _ended(self, row: Progress) -> bool:
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

    def _report(self, rows: Sequence[Progress]) -> DemoReport:
        outcomes = tuple(self._outcome(row) for row in rows)
        files = self._write_output(outcomes)
        report = DemoReport(
            outcomes=outcomes,
            files=files,
            seconds={
                **stage_seconds(outcomes),
                "total": round(time.monotonic() - self._started, 3),
            },
        )
        self._console.print(result_table(outcomes))
        self._console.print(times_table(outcomes))
        self._console.print(f"pictures, SEG and SR: {self._options.output.resolve()}", markup=False)
        return report

    def _outcome(self, row: Progress) -> Outcome:
        stores = self._node.stores
        try:
            record = stores.studies.get(row.study_instance_uid)
        except NotFoundError:
            return Outcome(progress=row, record=None, jobs=(), results=(), deliveries=())
        return Outcome(
            progress=row,
            record=record,
            jobs=stores.jobs.list(study_id=record.id),
            results=stores.jobs.results(study_id=record.id),
            deliveries=stores.deliveries.list(study_id=record.id),
        )

    def _write_output(self, outcomes: Sequence[Outcome]) -> dict[str, Path]:
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
            writers = Counter(result.writer for result in outcome.results)
            several = {name for name, made in writers.items() if made > 1}
            for result in outcome.results:
                if result.sop_instance_uid not in held:
                    continue
                name = f"{outcome.progress.study.name}-{result.writer}-{result.job_id}"
                count = sum(path.name.startswith(f"{name}-") for path in files.values())
                if result.writer in several:
                    name = f"{name}-{count + 1:03}"
                target = self._options.output / f"{name}.dcm"
                shutil.copyfile(held[result.sop_instance_uid], target)
                files[result.sop_instance_uid] = target.resolve()
                picture = target.with_suffix(".png")
                if result.sop_class_uid == SEGMENTATION:
                    overlay(target, sources, picture)
                elif result.sop_class_uid == SECONDARY_CAPTURE:
                    Image.fromarray(dcmread(target).pixel_array).save(picture)
        return files
