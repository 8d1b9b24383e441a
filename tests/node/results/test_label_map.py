"""Label maps: one number a voxel, for the destinations that read them (SEG-10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.uid import RLELossless
from scipy.spatial.transform import Rotation

from engines.findings import Analysis
from engines.images import Vector
from node.interfaces import ResultContext, ResultError
from node.results._run_lengths import run_lengths
from node.results._segmentation_check import compare_label_map
from node.results.label_map import LabelMapWriter
from node.results.segmentation import SegmentationWriter
from tests.node.results.building import (
    Headers,
    analysis,
    context,
    grid_of,
    multi_frame,
    nothing_found,
    refusal,
    series,
)
from tests.node.results.validators import DCIODVFY_ACCEPTED, dciodvfy


def labelled(headers: Headers) -> Analysis:
    """Make an analysis whose two segments lie in one array, with values that are not 1 and 2."""
    outcome = analysis(headers)
    first, second = outcome.findings
    labels = np.zeros(outcome.grid.shape, np.uint8)
    labels[first.mask], labels[second.mask] = 7, 3
    findings = tuple(
        replace(item, labels=labels, value=value) for item, value in ((first, 7), (second, 3))
    )
    return replace(outcome, findings=findings)


def write(made: ResultContext, path: Path) -> Dataset:
    (dataset,) = LabelMapWriter().write(made)
    dataset.save_as(path, enforce_file_format=True)
    LabelMapWriter().check(path, made)
    return pydicom.dcmread(path)


@pytest.fixture
def headers(tmp_path: Path) -> Headers:
    return series(tmp_path / "source")


def test_another_library_finds_every_voxel_in_its_slice(headers: Headers, tmp_path: Path) -> None:
    """SEG-10."""
    outcome = labelled(headers)
    write(context(headers, outcome), tmp_path / "map.dcm")
    read = segread(tmp_path / "map.dcm")
    assert (read.SegmentationType, read.SegmentsOverlap) == ("LABELMAP", "NO")
    assert list(read.segment_numbers) == [1, 2]
    seen = np.zeros(outcome.grid.shape, np.uint8)
    sources = {frame.sop_instance_uid: index for index, frame in enumerate(outcome.sources)}
    for number, groups in enumerate(read.PerFrameFunctionalGroupsSequence, 1):
        uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        seen[sources[uid]] = read.get_stored_frame(number)
    for number, segment in enumerate(outcome.findings, 1):
        assert np.array_equal(seen == number, segment.mask)


def test_the_validator_knows_no_label_maps_and_finds_nothing_else(
    headers: Headers, tmp_path: Path
) -> None:
    """VAL-03; the check before sending asks for what its modules require, by highdicom's tables."""
    write(context(headers, labelled(headers)), tmp_path / "map.dcm")
    assert dciodvfy(tmp_path / "map.dcm") == [f"Error - {DCIODVFY_ACCEPTED['VAL-03']}"]


def test_segments_are_those_of_the_binary_object_and_no_background(
    headers: Headers, tmp_path: Path
) -> None:
    """SEG-10: viewers take the first item to be segment 1."""
    made = context(headers, labelled(headers))
    written = write(made, tmp_path / "map.dcm")
    (binary,) = SegmentationWriter().write(made)
    assert written.SegmentSequence == binary.SegmentSequence
    assert written.file_meta.TransferSyntaxUID == RLELossless
    assert written.SeriesInstanceUID != binary.SeriesInstanceUID


@settings(max_examples=25, deadline=None)
@given(
    turn=st.tuples(*(st.floats(-3.1, 3.1) for _ in range(3))),
    spacing=st.tuples(*(st.floats(0.1, 10.0) for _ in range(3))),
    centre=st.tuples(*(st.floats(-500.0, 500.0) for _ in range(3))),
)
def test_labels_come_back_from_any_place_and_orientation(
    turn: Vector, spacing: Vector, centre: Vector
) -> None:
    axes = Rotation.from_euler("xyz", turn).as_matrix()
    orientation = (*axes[:, 0].tolist(), *axes[:, 1].tolist())
    with TemporaryDirectory() as name:
        folder = Path(name)
        found = series(
            folder / "source", slices=3, rows=9, columns=7,
            orientation=orientation, spacing=spacing, centre=centre,
        )  # fmt: skip
        write(context(found, labelled(found)), folder / "map.dcm")


def test_frames_of_an_enhanced_instance_are_referred_to_by_number(
    headers: Headers, tmp_path: Path
) -> None:
    sources, frames = multi_frame(headers)
    written = write(
        context(sources, replace(labelled(headers), sources=frames)), tmp_path / "map.dcm"
    )
    references = [
        groups.DerivationImageSequence[0].SourceImageSequence[0]
        for groups in written.PerFrameFunctionalGroupsSequence
    ]
    named = {frame.frame for frame in frames}
    assert {item.ReferencedFrameNumber for item in references} <= named
    assert {item.ReferencedSOPClassUID for item in references} == {sources[0].SOPClassUID}


def test_a_second_run_gives_the_same_bytes(headers: Headers, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(context(headers, labelled(headers)), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_only_an_analysis_whose_segments_cannot_overlap_has_a_label_map(headers: Headers) -> None:
    writer = LabelMapWriter()
    assert writer.handles(labelled(headers))
    for outcome in (analysis(headers), nothing_found(headers), refusal()):
        assert not writer.handles(outcome)
    grid = grid_of(headers)
    twice = replace(grid, positions=(grid.positions[0], *grid.positions[:-1]))
    assert not writer.handles(replace(labelled(headers), grid=twice))


def test_segments_of_several_arrays_are_refused(headers: Headers) -> None:
    with pytest.raises(ResultError, match="overlap"):
        LabelMapWriter().write(context(headers, analysis(headers)))


def change_a_label(dataset: Dataset) -> None:
    frames = pixel_array(dataset).copy()
    frames[1, 0, 0] += 1
    dataset.PixelData = encapsulate([run_lengths(frame) for frame in frames])


def move_a_frame(dataset: Dataset) -> None:
    frame = dataset.PerFrameFunctionalGroupsSequence[1]
    frame.PlanePositionSequence[0].ImagePositionPatient[2] += 1.0


def lose_a_frame(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence.pop()
    frames = pixel_array(dataset)[:-1]
    dataset.NumberOfFrames -= 1
    dataset.PixelData = encapsulate([run_lengths(frame) for frame in frames])


def swap_the_segments(dataset: Dataset) -> None:
    one, two = dataset.SegmentSequence
    one.TrackingUID, two.TrackingUID = two.TrackingUID, one.TrackingUID


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (change_a_label, "labels differ on slice"),
        (move_a_frame, "lies on no slice"),
        (lose_a_frame, "not those that hold a voxel"),
        (swap_the_segments, "not the findings"),
    ],
)
def test_the_check_before_sending_catches(
    damage: Callable[[Dataset], None], fault: str, headers: Headers, tmp_path: Path
) -> None:
    """OBJ-22."""
    made = context(headers, labelled(headers))
    dataset = write(made, tmp_path / "map.dcm")
    damage(dataset)
    dataset.save_as(tmp_path / "map.dcm")
    with pytest.raises(ResultError, match=fault):
        compare_label_map(tmp_path / "map.dcm", made, labelled(headers))


@pytest.mark.filterwarnings(  # a frame may by chance be as long encoded as plain
    "ignore:The number of bytes of compressed pixel data matches:UserWarning"
)
@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 400)),
        elements=st.sampled_from([0, 0, 0, 1, 255]),
    )
)
def test_run_lengths_decode_to_the_frame(frame: np.ndarray) -> None:
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.Rows, dataset.Columns = frame.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = encapsulate([run_lengths(frame)])
    assert np.array_equal(pixel_array(dataset), frame)


def test_a_run_ends_with_its_row_and_a_lone_pixel_is_literal() -> None:
    encoded = run_lengths(np.array([[5, 5, 5], [5, 6, 6]], np.uint8))
    assert encoded[64:] == bytes([254, 5, 0, 5, 255, 6])
