"""One job inside the sandbox: engine, result objects, check before send.

Everything here runs in the child process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import JsonValue
from pydicom.dataset import Dataset

import node.results
from engines.base import open_engine
from engines.findings import Outcome, Refusal
from engines.images import InstanceFile
from engines.package import EnginePackage, load_package
from engines.probe import probe
from engines.release import release_rung
from engines.sharing import use_threads
from engines.verify import Verdict, verify_package
from node.interfaces import (
    DeviceIdentity,
    EngineIdentity,
    ResultContext,
    ResultError,
    ResultWriter,
    SupersededResult,
)
from node.messages import (
    HeldMessage,
    JobAnswer,
    JobRequest,
    ReleaseRequest,
    ResultMessage,
    VerifyRequest,
)
from node.plugins import discover
from node.result_profiles import kind_of
from node.source_headers import read_sources
from node.source_images import FileImages

Progress: TypeAlias = Callable[[str], None]

FORWARD: Final = "forward"
"""The stage of a job in which the model itself runs."""


PICTURE: Final = "secondary_capture"
"""The result object that shows a person what another one holds."""


class EngineChangedError(Exception):
    """The engine package on disk is not the one that the node registered."""


@dataclass(slots=True)
class _Stages:
    """Names the stage under way and keeps the seconds of those that ended.

    The seconds of forward passes are a stage of their own, wherever they fall.
    """

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    forward: Callable[[], float] = lambda: 0.0
    _stage: str = ""
    _since: float = 0.0
    _forward: float = 0.0

    def enter(self, stage: str) -> None:
        now, forward = time.monotonic(), self.forward()
        within = forward - self._forward
        if self._stage:
            self._add(self._stage, now - self._since - within)
        if within:
            self._add(FORWARD, within)
        self._stage, self._since, self._forward = stage, now, forward
        if stage:
            self.progress(stage)

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 4)


def run_job_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Run one job; see `JobRequest` and `JobAnswer`.

    Raises:
        EngineChangedError, ResultError, and what engines raise: the job fails, nothing is sent.
    """
    job = JobRequest.model_validate(request)
    stages = _Stages(progress)
    stages.enter("loading")
    use_threads(job.threads)
    package = load_package(job.engine_folder)
    if package.digest != job.engine_digest:
        raise EngineChangedError(f"{package.name}: the package on disk changed since it was loaded")
    with open_engine(package, threads=job.threads, rung=job.rung, plans=job.plans) as engine:
        stages.forward = lambda: engine.forward_seconds
        stages.enter("inference")
        outcome = engine.run(_instances(job), stages.enter)
        stages.enter("encoding")
    context = _context(job, package, outcome)
    results = _write(context, chosen_writers(outcome, job.objects), job.staging, stages)
    held = _hold_back(context, job, stages)
    stages.enter("")
    answer = JobAnswer(
        refused=isinstance(outcome, Refusal),
        kind=kind_of(outcome),
        results=results,
        summary=summarise(outcome),
        timings=stages.seconds,
        held=held,
    )
    return answer.model_dump(mode="json")


def verify_engine_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Run an engine on its golden case (R29)."""
    wanted = VerifyRequest.model_validate(request)
    progress("verifying")
    return _verdict(verify_package(load_package(wanted.engine_folder), threads=wanted.threads))


def release_engine_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Hold a rung of an engine's ladder against the reference; its plan is built if need be."""
    wanted = ReleaseRequest.model_validate(request)
    progress("comparing")
    package = load_package(wanted.engine_folder)
    return _verdict(release_rung(package, wanted.rung, threads=wanted.threads, plans=wanted.plans))


def probe_operation(
    request: Mapping[str, JsonValue],  # noqa: ARG001 - nothing is asked
    progress: Progress,
) -> Mapping[str, JsonValue]:
    """Say which devices, driver and libraries this machine has (R27)."""
    progress("probing")
    found = probe()
    return {
        "gpus": [
            f"{gpu.name} ({gpu.capability}, {gpu.memory_mib} MiB)" for gpu in found.devices.gpus
        ],
        "driver_cuda": found.devices.driver_cuda,
        "reason": found.devices.reason,
        "versions": dict(found.versions),
    }


def _verdict(verdict: Verdict) -> Mapping[str, JsonValue]:
    return {
        "passed": verdict.passed,
        "reason": verdict.reason,
        "max_difference": verdict.max_difference,
        "seconds": verdict.seconds,
    }


def summarise(outcome: Outcome) -> dict[str, JsonValue]:
    """Say in JSON what the outcome was, for tables and the admin page; no pixels, no patient."""
    if isinstance(outcome, Refusal):
        return {
            "verdict": "not analysed",
            "reason": {
                "code": outcome.reason.value,
                "scheme": outcome.reason.scheme,
                "meaning": outcome.reason.meaning,
            },
            "detail": outcome.detail,
            **({} if outcome.held is None else {"held": summarise(outcome.held)}),
        }
    return {
        "verdict": "finding" if outcome.findings else "nothing found",
        "limits": list(outcome.limits),
        "findings": [
            {
                "label": finding.label,
                "measurements": [
                    {
                        "name": measurement.name.meaning,
                        "derivation": measurement.derivation.meaning
                        if measurement.derivation
                        else None,
                        "value": round(measurement.value, 4),
                        "unit": measurement.unit.value,
                        "slice": measurement.slice_index,
                    }
                    for measurement in finding.measurements
                ],
            }
            for finding in outcome.findings
        ],
    }


def ordered_writers() -> tuple[ResultWriter, ...]:
    """Return every result writer, each after those it follows."""
    waiting = {name: writer() for name, writer in discover(node.results, ResultWriter).items()}  # type: ignore[type-abstract]  # a plugin base is abstract on purpose
    ordered: list[ResultWriter] = []
    while waiting:
        ready = [w for w in waiting.values() if not any(name in waiting for name in w.follows)]
        if not ready:
            raise ResultError(f"result writers follow each other in a circle: {sorted(waiting)}")
        ordered += ready
        for writer in ready:
            del waiting[writer.name]
    return tuple(ordered)


def _instances(job: JobRequest) -> list[InstanceFile]:
    return [
        InstanceFile(
            path=item.path,
            offset=item.offset,
            length=item.length,
            sop_instance_uid=item.sop_instance_uid,
            sop_class_uid=item.sop_class_uid,
        )
        for item in job.instances
    ]


def _context(job: JobRequest, package: EnginePackage, outcome: Outcome) -> ResultContext:
    return ResultContext(
        job_key=job.job_key,
        generation=job.generation,
        created=job.created,
        series_created=job.series_created,
        rule=job.rule,
        rule_revision=job.rule_revision,
        device=DeviceIdentity(**job.device),
        engine=EngineIdentity(
            name=package.name,
            version=package.version,
            digest=package.digest,
            intended_use=package.intended_use,
            clinical_use=package.clinical_use,
            parameters=_parameters(package, job),
        ),
        outcome=outcome,
        sources=_sources(job, outcome),
        series_instance_uids=job.series_instance_uids,
        superseded=tuple(SupersededResult(**item) for item in job.superseded),
        written={},
        images=FileImages(
            {item.sop_instance_uid: item for item in _instances(job)},
            byte_limit=package.manifest.resources.pixel_mib << 20,
        ),
    )


def _parameters(package: EnginePackage, job: JobRequest) -> tuple[tuple[str, str], ...]:
    """Return what results say of how the engine works, with the runtime that ran it."""
    if job.rung is None:
        return package.parameters
    return (*package.parameters, ("Runtime", str(job.rung)))


def _sources(job: JobRequest, outcome: Outcome) -> tuple[Dataset, ...]:
    """Read the headers of what the outcome refers to, each instance once, in its order."""
    files = {item.sop_instance_uid: item for item in _instances(job)}
    uids = dict.fromkeys(source.sop_instance_uid for source in outcome.sources)
    return read_sources([files[uid] for uid in (uids or files)])


def chosen_writers(
    outcome: Outcome, objects: Mapping[str, tuple[str, ...]] | None
) -> tuple[ResultWriter, ...]:
    """Return the writers of what somebody wants, and of what those objects need, in order."""
    writers = [writer for writer in ordered_writers() if writer.handles(outcome)]
    if objects is None:
        return tuple(writer for writer in writers if writer.by_default)
    wanted = set(objects.get(kind_of(outcome), ()))
    for writer in reversed(writers):
        if writer.name in wanted:
            wanted.update(writer.needs)
    return tuple(writer for writer in writers if writer.name in wanted)


def _write(
    context: ResultContext, writers: Sequence[ResultWriter], staging: Path, stages: _Stages
) -> tuple[ResultMessage, ...]:
    written: dict[str, tuple[Dataset, ...]] = {}
    results: list[ResultMessage] = []
    paths: list[tuple[ResultWriter, ResultContext, Path]] = []
    for writer in writers:
        current = replace(context, written=dict(written))
        objects = writer.write(current)
        written[writer.name] = objects
        for index, dataset in enumerate(objects):
            path = staging / f"{writer.name}-{index}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            paths.append((writer, current, path))
            results.append(_message(writer.name, path, dataset))
    if not results:
        raise ResultError("no result writer can carry the outcome")
    stages.enter("checking")
    for writer, seen, path in paths:
        writer.check(path, seen)
    return tuple(results)


def _hold_back(context: ResultContext, job: JobRequest, stages: _Stages) -> HeldMessage | None:
    """Make what a person has to judge, as it will be sent if it is released, and its picture.

    The objects have identities of their own: those of the job itself are what was sent instead.
    """
    refusal = context.outcome
    if not isinstance(refusal, Refusal) or refusal.held is None:
        return None
    held = replace(context, outcome=refusal.held, job_key=f"{context.job_key}/held")
    stages.enter("encoding")
    writers = chosen_writers(refusal.held, _with_picture(refusal.held, job.objects))
    staging = job.staging / "held"
    staging.mkdir()
    return HeldMessage(
        kind=kind_of(refusal.held),
        reason=refusal.detail,
        results=_write(held, writers, staging, stages),
    )


def _with_picture(
    outcome: Outcome, objects: Mapping[str, tuple[str, ...]] | None
) -> Mapping[str, tuple[str, ...]] | None:
    """Return what is wanted of an outcome, and what shows a person where it lies."""
    if objects is None:
        return None
    kind = kind_of(outcome)
    return {**objects, kind: (*objects.get(kind, ()), PICTURE)}


def _message(writer: str, path: Path, dataset: Dataset) -> ResultMessage:
    return ResultMessage(
        writer=writer,
        path=path,
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        series_instance_uid=dataset.SeriesInstanceUID,
        transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
    )
