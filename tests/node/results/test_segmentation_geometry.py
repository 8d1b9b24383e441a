"""Masks go from files to a volume, into an object, and come back where they were, in mm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from highdicom.seg import Segmentation, segread
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from engines.findings import Analysis
from engines.images import FloatArray, Volume
from engines.refusals import Reason, SeriesRefusedError
from engines.series import read_volume
from node.interfaces import ResultWriter
from node.results.label_map import LabelMapWriter
from node.results.segmentation import SegmentationWriter
from tests.factories import CtOptions, CtPlan, instance_files, make_ct_series, slice_position
from tests.node.results.building import (
    LUNG,
    analysis,
    context,
    multi_frame,
    segment,
    series,
)
from tests.node.results.itk import convert, mask_centres

EXAMPLES: Final = int(os.environ.get("GEOMETRIES", "100"))
"""How many for each kind of object; `make geometries` has a thousand."""
TOLERANCE: Final = 1e-4  # mm; a decimal string (PS3.5 DS) has 16 characters
LABELS: Final = (7, 3)
WRITERS: Final[tuple[ResultWriter, ...]] = (SegmentationWriter(), LabelMapWriter())

LabelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A stack, the order and the numbers that its images come with, and what is found in it.

    `labels` is uint8 [slice, row, column], slices in ascending order along the normal.
    """

    options: CtOptions
    order: tuple[int, ...]
    numbers: tuple[int, ...]
    labels: LabelArray

    @property
    def plan(self) -> CtPlan:
        return CtPlan(**self.options)


@st.composite
def directions(draw: st.DrawFn) -> tuple[float, ...]:
    """Draw directions of row and column: along axes, some degrees off them, or anything."""
    quarters = draw(st.tuples(*(st.integers(0, 3) for _ in range(3))))
    off = draw(
        st.one_of(
            st.just((0.0, 0.0, 0.0)),
            st.tuples(*(st.floats(-20.0, 20.0) for _ in range(3))),
            st.tuples(*(st.floats(-180.0, 180.0) for _ in range(3))),
        )
    )
    along_axes = np.round(
        Rotation.from_euler("xyz", np.multiply(quarters, 90), degrees=True).as_matrix()
    )
    axes = Rotation.from_euler("xyz", off, degrees=True).as_matrix() @ along_axes
    return (*axes[:, 0].tolist(), *axes[:, 1].tolist())


@st.composite
def geometries(draw: st.DrawFn, least: int = 2, most: int = 5) -> Geometry:
    count = draw(st.integers(least, most))
    rows, columns = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    options: CtOptions = {
        "slices": count,
        "rows": rows,
        "columns": columns,
        "orientation": draw(directions()),
        "spacing": draw(st.tuples(*(st.floats(0.3, 8.0) for _ in range(3)))),
        "centre": draw(st.tuples(*(st.floats(-800.0, 800.0) for _ in range(3)))),
    }
    ascending = list(range(count))
    orders = st.one_of(st.just(ascending), st.just(ascending[::-1]), st.permutations(ascending))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = generator.choice(np.array([0, *LABELS], np.uint8), (count, rows, columns))
    labels[0, 0, 0], labels[-1, -1, -1] = LABELS
    return Geometry(
        options=options, order=tuple(draw(orders)), numbers=tuple(draw(orders)), labels=labels
    )


def read(case: Geometry, folder: Path) -> tuple[Volume, list[Path]]:
    """Write the images, and read them as an engine does, in the order in which they come."""

    def number(dataset: pydicom.Dataset, index: int) -> None:
        dataset.InstanceNumber = case.numbers[index] + 1
        dataset.SliceLocation = str(-case.numbers[index])

    options: CtOptions = {**case.options, "modify": number}
    paths = make_ct_series(folder, **options)
    chosen = [paths[index] for index in case.order if index < len(paths)]
    return read_volume(instance_files(chosen)), chosen


def found_in(case: Geometry, volume: Volume) -> Analysis:
    findings = tuple(
        replace(segment(str(value), case.labels == value), labels=case.labels, value=value)
        for value in LABELS
    )
    return Analysis(
        grid=volume.grid, sources=volume.sources, findings=findings, sought=(LUNG,), limits=()
    )


def truth(case: Geometry, value: int) -> FloatArray:
    """Return where voxels of a label lie by the plan of the series, not by what was read of it."""
    index = np.argwhere(case.labels == value)
    plan = case.plan
    corners = np.stack([slice_position(plan, number) for number in range(plan.slices)])
    across, down = np.array(plan.orientation[:3]), np.array(plan.orientation[3:])
    placed: FloatArray = (
        corners[index[:, 0]]
        + index[:, 1:2] * plan.spacing[1] * down
        + index[:, 2:3] * plan.spacing[2] * across
    )
    return placed


def same_places(one: FloatArray, other: FloatArray) -> bool:
    """Say whether two sets of points are the same, whatever their order."""
    apart, nearest = cKDTree(one).query(other)
    each_once = len(one) == len(other) == len(np.unique(nearest))
    return each_once and float(np.max(apart)) < TOLERANCE


def read_back(seg: Segmentation) -> Iterator[FloatArray]:
    """Yield where highdicom finds the voxels of each segment (LPS, mm)."""
    volume = seg.get_volume(combine_segments=False)
    for channel in np.moveaxis(np.asarray(volume.array), -1, 0):
        yield volume.map_indices_to_reference(np.argwhere(channel))


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: str(writer.name))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(case=geometries())
def test_every_voxel_comes_back_at_its_place_in_the_patient(
    case: Geometry, writer: ResultWriter
) -> None:
    """SEG-02, GEO-01, GEO-02: whatever the directions, spacings, origin and order of images."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        volume, paths = read(case, folder / "source")
        headers = tuple(pydicom.dcmread(path, stop_before_pixels=True) for path in paths)
        made = context(headers, found_in(case, volume))
        (dataset,) = writer.write(made)
        dataset.save_as(folder / "seg.dcm", enforce_file_format=True)
        found = list(read_back(segread(folder / "seg.dcm")))
    assert len(found) == len(LABELS)
    for value, centres in zip(LABELS, found, strict=True):
        assert same_places(centres, truth(case, value))


def refusal_of(case: Geometry) -> Reason:
    with TemporaryDirectory() as name, pytest.raises(SeriesRefusedError) as caught:
        read(case, Path(name))
    return caught.value.reason


@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=geometries(5, 7), data=st.data())
def test_a_stack_with_a_slice_missing_is_refused(case: Geometry, data: st.DataObject) -> None:
    """GEO-04: in any direction, so nothing is ever drawn across a gap."""
    gap = data.draw(st.integers(1, case.plan.slices - 2))
    lacking: CtOptions = {**case.options, "missing": (gap,)}
    assert refusal_of(replace(case, options=lacking)) is Reason.MISSING_SLICES


@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=geometries(), degrees=st.floats(3.0, 30.0), towards=st.sampled_from([1, -1]))
def test_a_sheared_stack_is_refused(case: Geometry, degrees: float, towards: int) -> None:
    """GEO-03: a gantry tilted to either side, with the slices in any direction."""
    sheared: CtOptions = {**case.options, "tilt_degrees": towards * degrees}
    assert refusal_of(replace(case, options=sheared)) is Reason.TILTED


def test_another_toolkit_finds_masks_on_the_frames_of_an_enhanced_image(tmp_path: Path) -> None:
    """GEO-10: frames lie in another order than slices."""
    headers = series(tmp_path / "source", spacing=(3.0, 0.7, 1.2))
    sources, frames = multi_frame(headers)
    outcome = replace(analysis(headers), sources=frames)
    (dataset,) = SegmentationWriter().write(context(sources, outcome))
    dataset.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    found = convert(tmp_path / "seg.dcm", tmp_path / "itk")
    for item, wanted in zip(dataset.SegmentSequence, outcome.findings, strict=True):
        centres = mask_centres(wanted.mask, outcome.grid)
        assert len(found[item.TrackingUID]) == len(centres)
        apart, _ = cKDTree(centres).query(found[item.TrackingUID])
        assert float(np.max(apart)) < 0.01
