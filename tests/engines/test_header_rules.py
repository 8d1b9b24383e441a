from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydicom.dataset import Dataset

from engines.header_rules import header_rule_faults
from engines.manifest import AttributeRule, SuitabilityTable
from engines.refusals import Reason
from engines.series import read_series
from tests.engines.test_suitability import BYTE_LIMIT, wanted
from tests.factories import instance_files, make_ct_series, make_enhanced_ct


def faults(paths: list[Path], table: SuitabilityTable) -> list[tuple[Reason, str]]:
    series = read_series(instance_files(paths), byte_limit=BYTE_LIMIT)
    return list(header_rule_faults(series.frames, table))


def asked(keyword: str, **keys: object) -> SuitabilityTable:
    return wanted(attributes=(AttributeRule.model_validate({"keyword": keyword, **keys}),))


def on_the_left(dataset: Dataset, _index: int) -> None:
    dataset.Laterality = "L"


def test_a_value_has_to_be_one_of_those_allowed(tmp_path: Path) -> None:
    files = make_ct_series(tmp_path, slices=2, rows=16, columns=16, modify=on_the_left)
    assert not faults(files, asked("Laterality", allowed=("l", "B")))
    ((reason, detail),) = faults(files, asked("Laterality", allowed=("R",)))
    assert reason is Reason.WRONG_LATERALITY
    assert detail == "Laterality is another value than R in 2 of 2 images"


def test_an_absent_value_passes_unless_it_has_to_be_there(tmp_path: Path) -> None:
    files = make_ct_series(tmp_path, slices=2, rows=16, columns=16)
    assert not faults(files, asked("ViewPosition", allowed=("PA",)))
    ((reason, detail),) = faults(files, asked("ViewPosition", allowed=("PA",), present=True))
    assert reason is Reason.WRONG_VIEW
    assert "absent in 2 of 2" in detail
    assert not faults(files, asked("ContrastBolusAgent", present=False))
    ((reason, _),) = faults(files, asked("KVP", present=False))
    assert reason is Reason.WRONG_ATTRIBUTE


def test_values_of_functional_groups_count(tmp_path: Path) -> None:
    path = make_enhanced_ct(tmp_path / "a.dcm", slices=3, rows=16, columns=16)
    ((reason, _),) = faults([path], asked("FrameLaterality", allowed=("L",)))
    assert reason is Reason.WRONG_LATERALITY
    assert not faults([path], asked("FrameLaterality", allowed=("U",)))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"keyword": "Laterality"}, "neither allowed nor present"),
        ({"keyword": "Laterality", "allowed": ("L",), "present": False}, "has to be absent"),
        ({"keyword": "NotAWord", "present": True}, "no keyword of DICOM"),
    ],
)
def test_a_rule_that_asks_nothing_is_refused(rule: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        AttributeRule.model_validate(rule)
