from __future__ import annotations

from node.admin.outcome import read_outcome
from tests.node.admin.planting import FINDING


def test_a_finding_is_read_with_its_measurements() -> None:
    outcome = read_outcome(FINDING)
    assert outcome is not None
    assert outcome.verdict == "finding"
    assert outcome.labels == ("Liver",)
    assert outcome.findings[0].measurements[0].value == 1512.25


def test_a_refusal_is_read_with_its_reason() -> None:
    outcome = read_outcome(
        {
            "verdict": "not analysed",
            "reason": {"code": "1", "scheme": "99W", "meaning": "Slices missing"},
            "detail": "3 slices missing",
        }
    )
    assert outcome is not None
    assert outcome.reason is not None
    assert outcome.reason.meaning == "Slices missing"


def test_a_summary_of_another_form_is_left_to_be_shown_as_it_is() -> None:
    assert read_outcome({}) is None
    assert read_outcome({"verdict": ["not", "text"]}) is None
