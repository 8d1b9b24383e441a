"""Unique identifiers of result objects: the same job makes the same ones (UID-01, invariant 13)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Final

from engines.findings import Analysis, ImageAnalysis, SlideAnalysis
from node.interfaces import DeviceIdentity, ResultContext

NAMESPACE: Final = uuid.UUID("a3bb1a1c-5a53-5c0e-8b7e-6d1f5f3c2e90")
"""Fixed for the life of the product: another value would give every result a new identity."""


def derived_uid(*parts: str | int | Sequence[str]) -> str:
    """Return 2.25.<uuid5 of the canonical JSON of the parts> (PS3.5 B.2)."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=True)
    return f"2.25.{uuid.uuid5(NAMESPACE, text).int}"


def instance_uid(context: ResultContext, writer: str, index: int = 0) -> str:
    """Name one output of one job. `job_key` holds the study's revision, so a re-run differs."""
    return derived_uid("instance", context.job_key, context.engine.digest, writer, index)


def series_uid(context: ResultContext, writer: str, *more: str) -> str:
    """Name the series that re-runs of an engine version share (UID-04).

    Rule and source series are part of it: jobs that differ in them run side by side, and in one
    series the viewers would show the last of them only. `more` is what else must be equal
    throughout a series, such as the Frame of Reference (PS3.3 A.1.2.5).
    """
    return derived_uid(
        "series",
        context.sources[0].StudyInstanceUID,
        writer,
        context.engine.name,
        context.engine.version,
        context.rule,
        job_series(context),
        more,
    )


def job_series(context: ResultContext) -> list[str]:
    """Return the Series Instance UIDs that the job was started for, sorted."""
    if context.series_instance_uids:
        return sorted(context.series_instance_uids)
    return sorted({str(source.SeriesInstanceUID) for source in context.sources})


def tracking_uid(
    context: ResultContext, analysis: Analysis | ImageAnalysis | SlideAnalysis, key: str
) -> str:
    """Name a finding for SEG, SR and every re-run of the engine on these images (OBJ-17)."""
    return derived_uid(
        "tracking",
        context.sources[0].StudyInstanceUID,
        sorted({source.series_instance_uid for source in analysis.sources}),
        context.engine.name,
        key,
    )


def device_uid(device: DeviceIdentity) -> str:
    """Name the installation (OBJ-14)."""
    return derived_uid("device", device.manufacturer, device.model, device.serial_number)
