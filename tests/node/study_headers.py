"""Headers as rules see them, and what rules make of them: for tests of routing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from node.conditions import Scalar, Values
from node.routing import (
    Decision,
    InstanceHeaders,
    SeriesHeaders,
    StudyHeaders,
    decide,
    parse_rules,
)

NOW: Final = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)  # a Monday
HEAD: Final = '[[rules]]\nname = "a"\nengines = ["e"]\ndestinations = ["d"]\n'
Attributes: TypeAlias = Mapping[str, Scalar | Values]


def series(uid: str, *instances: Attributes) -> SeriesHeaders:
    """Make a series; a value that stands alone is written without its tuple."""
    return SeriesHeaders(
        series_instance_uid=uid,
        instances=tuple(
            InstanceHeaders(
                sop_instance_uid=f"{uid}.{number}",
                values={
                    name: value if isinstance(value, tuple) or value is None else (value,)
                    for name, value in instance.items()
                },
            )
            for number, instance in enumerate(instances, start=1)
        ),
    )


def study(*members: SeriesHeaders) -> StudyHeaders:
    return StudyHeaders(study_instance_uid="1.2", series=members)


def routed(
    rules: str, *members: SeriesHeaders, calling_ae: str = "CT1", verdict: str = ""
) -> Decision:
    parsed = parse_rules(rules)
    return decide(parsed, study(*members), calling_ae=calling_ae, now=NOW, verdict=verdict)


def holds(condition: str, *members: SeriesHeaders, calling_ae: str = "CT1") -> bool:
    """Say whether a condition on the study holds."""
    decision = routed(HEAD + f"conditions = {condition}", *members, calling_ae=calling_ae)
    return explained(decision)["conditions"]["verdict"] is True


def explained(decision: Decision, rule: int = 0) -> Any:  # noqa: ANN401 - JSON
    return json.loads(json.dumps(decision.explanation, allow_nan=False))["rules"][rule]


def chosen(decision: Decision) -> list[str]:
    return [uid for job in decision.jobs for uid in job.series_instance_uids]


CT: Attributes = {"Modality": "CT", "SliceThickness": 1.0}
SR: Attributes = {"Modality": "SR"}
