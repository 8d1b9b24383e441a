from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydicom.uid import ExplicitVRLittleEndian

from engines.findings import Analysis
from node.results._segments import overlap
from node.results.segmentation import SegmentationWriter
from tests.node.results.building import Headers, analysis, context, segment, series
from tests.node.results.pictured import save
from tests.node.results.test_label_map import labelled

SHAPE = (2, 3, 4)


@pytest.fixture
def axial(tmp_path: Path) -> Headers:
    return series(tmp_path / "source")


def written(headers: Headers, outcome: Analysis, folder: Path) -> pydicom.Dataset:
    [path] = save(SegmentationWriter(), context(headers, outcome), folder)
    return segread(path)


def test_all_segments_are_in_one_binary_object_that_says_whether_they_overlap(
    axial: Headers, tmp_path: Path
) -> None:
    """SEG-01: in arrays of their own they may, in one array they cannot."""
    for name, outcome, said in (
        ("apart", analysis(axial), "NO"),
        ("overlapping", analysis(axial, overlap=True), "YES"),
        ("one array", labelled(axial), "NO"),
    ):
        dataset = written(axial, outcome, tmp_path / name)
        assert (dataset.SegmentationType, len(dataset.SegmentSequence)) == ("BINARY", 2)
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert dataset.SegmentsOverlap == said


@given(
    arrays.arrays(np.uint8, SHAPE, elements=st.integers(0, 3)),
    arrays.arrays(np.uint8, SHAPE, elements=st.integers(0, 3)),
)
def test_segments_overlap_where_a_voxel_belongs_to_two(one: np.ndarray, other: np.ndarray) -> None:
    segments = [
        segment(f"{name} {value}", labels == value, labels=labels, value=value, measurements=())
        for name, labels in (("one", one), ("other", other))
        for value in (1, 2)
    ]
    drawn = [item for item in segments if item.by_slice.any()]
    assert overlap(drawn) == bool(
        (sum(item.mask.astype(int) for item in drawn) > np.ones(SHAPE)).any()
    )
    assert not overlap(drawn[:1])


def test_a_label_is_not_longer_than_it_may_be(axial: Headers, tmp_path: Path) -> None:
    """SEG-06."""
    outcome = analysis(axial)
    long = segment("one", outcome.findings[0].mask, label="Left lung " * 20)
    dataset = written(axial, replace(outcome, findings=(long,)), tmp_path)
    assert 0 < len(dataset.SegmentSequence[0].SegmentLabel) <= 64
