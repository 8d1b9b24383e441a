from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node.interfaces import ResultError
from node.results._iod import missing_attributes, require_attributes
from tests.node.results.building import analysis, context, series, write_all


@pytest.fixture
def segmentation(tmp_path: Path) -> Dataset:
    headers = series(tmp_path)
    return write_all(context(headers, analysis(headers)))["segmentation"][0]


def test_a_complete_object_lacks_nothing(segmentation: Dataset) -> None:
    assert not list(missing_attributes(segmentation, also=("frame-of-reference",)))


def test_a_missing_type_2_attribute_is_named(segmentation: Dataset) -> None:
    del segmentation.PatientBirthDate
    with pytest.raises(ResultError, match="patient/PatientBirthDate: Type 2 missing"):
        require_attributes(segmentation)


def test_an_empty_type_1_attribute_is_named_deep_inside(segmentation: Dataset) -> None:
    segmentation.SegmentSequence[1].SegmentLabel = ""
    with pytest.raises(ResultError, match="SegmentSequence/SegmentLabel: Type 1 empty"):
        require_attributes(segmentation)


def test_a_conditional_module_is_checked_where_it_is_asked_for(segmentation: Dataset) -> None:
    del segmentation.FrameOfReferenceUID
    assert not list(missing_attributes(segmentation))
    assert list(missing_attributes(segmentation, also=("frame-of-reference",)))


def test_an_unknown_sop_class_is_a_fault() -> None:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.3"
    assert list(missing_attributes(dataset)) == ["SOPClassUID: no IOD is known for 1.2.3"]
