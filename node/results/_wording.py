"""The sentences of the text report. No patient's name, no number that the outcome does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataset import Dataset

from engines.findings import (
    Analysis,
    Classification,
    Code,
    ImageAnalysis,
    Measurement,
    Outlines,
    Refusal,
    Segment,
    SlideAnalysis,
)
from node.interfaces import ResultContext
from node.results._segments import undrawn_segments
from node.results._sources import header_text, headers_by_uid, source_of
from node.results._text import clean, counted, number

SENTENCE: Final = 1024
WARNING: Final = "AI RESULT - PRELIMINARY - NOT VERIFIED BY A PHYSICIAN."
NO_NEGATIVE: Final = "There is no AI result for these images; this does not mean a normal finding."
REPLACES: Final = "This report replaces an AI report on an earlier state of this study."
HOUNSFIELD: Final = "[hnsf'U]"
UNITLESS: Final = "1"


def summary(context: ResultContext) -> list[str]:
    """Say first what must not be missed: whose result it is, and which of the three it is."""
    lines = [WARNING, *_verdict(context), _sentence(context.engine.clinical_use)]
    if context.superseded:
        lines.append(REPLACES)
    return lines


def reason(refusal: Refusal) -> list[str]:
    """Give the numbers behind a refusal."""
    return [_sentence(refusal.detail or refusal.reason.meaning)]


def findings(
    analysis: Analysis | ImageAnalysis | SlideAnalysis, context: ResultContext
) -> list[str]:
    """Give each finding with its values, what was sought, and the limits beside them."""
    if isinstance(analysis, Analysis):
        lines = [_finding(segment, analysis, context) for segment in analysis.findings]
    elif isinstance(analysis, SlideAnalysis):
        lines = [_outlines(item) for item in analysis.findings]
    else:
        lines = [_classification(item, analysis, context) for item in analysis.findings]
    verb = "Looked for" if lines else "Not found"
    lines.append(_sentence(f"{verb}: {_listed(analysis.sought)}."))
    return [*lines, *(_sentence(f"Limit: {limit}") for limit in analysis.limits)]


def procedure(context: ResultContext) -> list[str]:
    """Say what was analysed, by which engine, at whose request and when."""
    engine, device = context.engine, context.device
    lines = [
        *_analysed(context),
        f"Engine: {engine.name} {engine.version}, package SHA-256 {engine.digest}.",
        f"Intended use: {engine.intended_use}",
        f"Run by {device.model} {device.software_version} at station {device.station_name},"
        f" rule {context.rule} (revision {context.rule_revision}).",
        f"{when(context)}.",
    ]
    return [_sentence(line) for line in lines]


def when(context: ResultContext) -> str:
    """Say when the job was made, and for which state of the study (VIEW-03)."""
    made = context.created.strftime("%Y-%m-%d %H:%M %Z").strip()
    return f"Made {made}, revision {context.generation} of the study"


def _verdict(context: ResultContext) -> Iterator[str]:
    outcome = context.outcome
    if isinstance(outcome, Refusal):
        yield _sentence(f"NOT ANALYSED: {outcome.reason.meaning}.")
        yield NO_NEGATIVE
    elif outcome.findings:
        names = ", ".join(dict.fromkeys(finding.label for finding in outcome.findings))
        yield _sentence(f"Analysed, {counted(len(outcome.findings), 'finding')}: {names}.")
    else:
        yield _sentence(f"Analysed, nothing found. Looked for: {_listed(outcome.sought)}.")


def _finding(segment: Segment, analysis: Analysis, context: ResultContext) -> str:
    values = [_value(item, analysis, context) for item in segment.measurements]
    if segment.key in {item.key for item in undrawn_segments(analysis)}:
        values.append("not drawn on the images")
    return _sentence(f"{segment.label}: {'; '.join(values) or 'found, no measurement'}.")


def _classification(
    finding: Classification, analysis: ImageAnalysis, context: ResultContext
) -> str:
    values = [_value(item, analysis, context) for item in finding.measurements]
    image = image_name(finding.image, analysis, context)
    return _sentence(f"{finding.label} on {image}: {'; '.join(values) or 'found'}.")


def _value(
    measurement: Measurement, analysis: Analysis | ImageAnalysis, context: ResultContext
) -> str:
    text = _number(measurement)
    if measurement.slice_index is None:
        return text
    return f"{text} on {image_name(measurement.slice_index, analysis, context)}"


def _outlines(finding: Outlines) -> str:
    return _sentence(f"{finding.label}: {'; '.join(map(_number, finding.measurements))}.")


def _number(measurement: Measurement) -> str:
    unit = {HOUNSFIELD: " HU", UNITLESS: ""}.get(
        measurement.unit.value, f" {measurement.unit.value}"
    )
    derivation = f"{measurement.derivation.meaning} " if measurement.derivation else ""
    return f"{derivation}{measurement.name.meaning} {number(measurement.value)}{unit}"


def image_name(
    index: int, analysis: Analysis | ImageAnalysis | SlideAnalysis, context: ResultContext
) -> str:
    """Name a slice as the workstation does: by instance number, and by frame where it has any."""
    frame = analysis.sources[index]
    name = header_text(source_of(headers_by_uid(context), frame), "InstanceNumber", 12)
    image = f"image {name}" if name else f"{index + 1} of {len(analysis.sources)}"
    return image if frame.frame is None else f"{image} frame {frame.frame}"


def _analysed(context: ResultContext) -> Iterator[str]:
    verb = "Looked at" if isinstance(context.outcome, Refusal) else "Analysed"
    by_series: dict[str, list[Dataset]] = {}
    for source in context.sources:
        by_series.setdefault(str(source.SeriesInstanceUID), []).append(source)
    for sources in by_series.values():
        yield f"{verb}: {_series(sources)}."


def _series(sources: Sequence[Dataset]) -> str:
    first = sources[0]
    name = f"{header_text(first, 'Modality', 16)} series {header_text(first, 'SeriesNumber', 12)}"
    description = header_text(first, "SeriesDescription")
    if description:
        name += f' "{description}"'
    frames = sum(_frames(source) for source in sources)
    counts = counted(len(sources), "instance")
    if frames != len(sources):
        counts += f" with {counted(frames, 'frame')}"
    return f"{name.strip()}, {counts}"


def _frames(source: Dataset) -> int:
    text = header_text(source, "NumberOfFrames", 12)
    return int(text) if text.isdecimal() else 1


def _listed(concepts: Sequence[Code]) -> str:
    return ", ".join(concept.meaning for concept in concepts) or "what the engine looks for"


def _sentence(text: str) -> str:
    return clean(text, SENTENCE)
