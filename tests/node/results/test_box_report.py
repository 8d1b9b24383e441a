from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import (
    MeasurementReport,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    srread,
)
from pydicom.dataset import Dataset

from engines.findings import Analysis
from node.interfaces import ResultError
from node.results.box_report import BoxReportWriter, box_around
from node.results.segmentation import SegmentationWriter
from tests.node.results.building import (
    LUNG,
    Headers,
    analysis,
    context,
    frames_of,
    grid_of,
    multi_frame,
    nothing_found,
    refusal,
    segment,
    series,
    superseded_by,
)
from tests.node.results.pictured import save
from tests.node.results.test_measurement_report import item_named, named, walk
from tests.node.results.validators import dsrdump

Groups = list[PlanarROIMeasurementsAndQualitativeEvaluations]
ROWS, COLUMNS = slice(7, 19), slice(11, 30)


@pytest.fixture
def headers(tmp_path: Path) -> Headers:
    return series(tmp_path / "source")


def nodule(headers: Headers) -> Analysis:
    """Find one thing: a pixel on one slice, and a block with gaps on the next."""
    mask = np.zeros(grid_of(headers).shape, dtype=np.bool_)
    mask[2, 3, 3] = True
    mask[3, ROWS, COLUMNS] = np.indices((12, 19)).sum(axis=0) % 2 == 0
    found = segment("nodule", mask, colour=(220, 30, 30))
    return Analysis(
        grid=grid_of(headers), sources=frames_of(headers), findings=(found,), sought=(LUNG,)
    )


def groups_of(path: Path) -> Groups:
    content = srread(path).content
    assert isinstance(content, MeasurementReport)
    return content.get_planar_roi_measurement_groups()


def test_a_box_bounds_the_segment_on_the_slice_where_it_is_largest(
    headers: Headers, tmp_path: Path
) -> None:
    """OBJ-18, SR-04: a closed rectangle of five points, along the edges of the outermost pixels."""
    [path] = save(BoxReportWriter(), context(headers, nodule(headers)), tmp_path)
    [group] = groups_of(path)
    assert group.roi is not None
    assert group.roi.value.tolist() == [[11, 7], [30, 7], [30, 19], [11, 19], [11, 7]]
    assert group.roi.graphic_type.value == "POLYLINE"
    [image] = group.roi.ContentSequence
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == headers[3].SOPInstanceUID
    [purpose] = [item for item in group[0].ContentSequence if named(item, "130400")]
    assert purpose.ConceptCodeSequence[0].CodeMeaning == "Bounded by"


def test_a_box_is_tied_to_its_segment_by_the_tracking_uid(headers: Headers, tmp_path: Path) -> None:
    """OBJ-16, OBJ-17: one finding, whichever object shows it."""
    made = context(headers, analysis(headers))
    [drawn] = SegmentationWriter().write(made)
    [path] = save(BoxReportWriter(), made, tmp_path)
    assert [(group.tracking_uid, group.tracking_identifier) for group in groups_of(path)] == [
        (item.TrackingUID, item.TrackingID) for item in drawn.SegmentSequence
    ]


def test_numbers_are_of_that_slice_and_lie_on_the_box(headers: Headers, tmp_path: Path) -> None:
    """SR-05: each is inferred from the region; what holds of the whole segment is left out."""
    [path] = save(BoxReportWriter(), context(headers, nodule(headers)), tmp_path)
    [group] = groups_of(path)
    [area] = group.get_measurements()
    assert (area.name.meaning, area.unit.value) == ("Area", "cm2")
    assert area.value == pytest.approx(12 * 19 / 2 * 3.0 * 3.0 / 100)
    [region] = [item for item in area[0].ContentSequence if item.ValueType == "SCOORD"]
    assert region.GraphicData == [11, 7, 30, 7, 30, 19, 11, 19, 11, 7]


def test_what_the_engine_measured_on_the_slice_stands_in_its_own_units(
    headers: Headers, tmp_path: Path
) -> None:
    outcome = analysis(headers)
    [path] = save(BoxReportWriter(), context(headers, outcome), tmp_path)
    values = [
        [(number.value, number.unit.value) for number in group.get_measurements()]
        for group in groups_of(path)
    ]
    assert values[1] == [(3600.123456789, "mm2")]
    assert outcome.findings[0].measurements[2].value not in values[0][0]


def test_a_box_on_an_enhanced_instance_names_its_frame(headers: Headers, tmp_path: Path) -> None:
    sources, frames = multi_frame(headers)
    [path] = save(
        BoxReportWriter(), context(sources, replace(nodule(headers), sources=frames)), tmp_path
    )
    [group] = groups_of(path)
    assert group.roi is not None
    [image] = group.roi.ContentSequence
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == frames[3].frame


def test_the_report_names_its_engine_and_that_nobody_verified_it(
    headers: Headers, tmp_path: Path
) -> None:
    """OBJ-13, OBJ-15: preliminary, unverified, made by a device, with version and digest."""
    [path] = save(BoxReportWriter(), context(headers, nodule(headers)), tmp_path)
    report = pydicom.dcmread(path)
    flags = (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert report.SeriesDescription == "AI lung-seg boxes (unverified)"
    text, faults = dsrdump(path)
    assert not faults
    for said in ("lung-seg", "1.2.0", f"package-sha256={'ab' * 32}", "Artificial Intelligence"):
        assert said in text


def test_a_report_on_a_later_revision_names_the_one_it_replaces(headers: Headers) -> None:
    outcome = nodule(headers)
    [first] = BoxReportWriter().write(context(headers, outcome))
    again = replace(
        context(headers, outcome, generation=2),
        superseded=(superseded_by(first, "box_report"), superseded_by(first, "text_report")),
    )
    [second] = BoxReportWriter().write(again)
    [series_item] = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    [reference] = series_item.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert second.SeriesInstanceUID == first.SeriesInstanceUID


def test_the_writer_takes_segments_that_can_be_drawn(headers: Headers) -> None:
    writer = BoxReportWriter()
    assert writer.handles(analysis(headers))
    assert not writer.handles(nothing_found(headers))
    assert not writer.handles(refusal())
    with pytest.raises(ResultError, match="no segments"):
        writer.write(context(headers, refusal()))


def test_a_box_may_fill_the_image(headers: Headers) -> None:
    whole = segment("all", np.ones(grid_of(headers).shape, dtype=np.bool_))
    assert box_around(whole, 0).tolist() == [[0, 0], [40, 0], [40, 48], [0, 48], [0, 0]]


def regions(dataset: Dataset) -> list[Dataset]:
    return [item for item in walk(dataset) if item.ValueType == "SCOORD"]


def move_a_box(dataset: Dataset) -> None:
    data = item_named(dataset, "111030").GraphicData
    item_named(dataset, "111030").GraphicData = [value + 1 for value in data]


def widen_the_boxes(dataset: Dataset) -> None:
    for region in regions(dataset):
        region.GraphicData = [10, 7, 30, 7, 30, 19, 10, 19, 10, 7]


def open_a_box(dataset: Dataset) -> None:
    item_named(dataset, "111030").GraphicData = [11, 7, 30, 7, 30, 19, 11, 19]


def refer_to_another_image(dataset: Dataset) -> None:
    image = item_named(dataset, "111030").ContentSequence[0].ReferencedSOPSequence[0]
    library = item_named(dataset, "260753009").ReferencedSOPSequence[0]
    image.ReferencedSOPInstanceUID = f"{library.ReferencedSOPInstanceUID}.1"


def lose_the_coordinates_of_a_number(dataset: Dataset) -> None:
    item_named(dataset, "42798000").ContentSequence = []


def lose_the_box(dataset: Dataset) -> None:
    group = item_named(dataset, "125007")
    group.ContentSequence = [item for item in group.ContentSequence if not named(item, "111030")]


def change_an_area(dataset: Dataset) -> None:
    item_named(dataset, "42798000").MeasuredValueSequence[0].FloatingPointValue = 1.0


def change_a_tracking_uid(dataset: Dataset) -> None:
    item_named(dataset, "112040").UID = "1.2.3"


def lose_a_group(dataset: Dataset) -> None:
    item_named(dataset, "126010").ContentSequence = []


def claim_verification(dataset: Dataset) -> None:
    dataset.VerificationFlag = "VERIFIED"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (move_a_box, "the box of nodule does not bound it"),
        (widen_the_boxes, "the box of nodule does not bound it"),
        (open_a_box, "the box of nodule is no rectangle"),
        (refer_to_another_image, "lies on another image"),
        (lose_the_coordinates_of_a_number, "a number has no coordinates"),
        (lose_the_box, "nodule has not one region"),
        (change_an_area, "the numbers of nodule differ"),
        (change_a_tracking_uid, "the tracking UID of nodule differs"),
        (lose_a_group, "the groups are not the segments"),
        (claim_verification, "OBJ-13"),
    ],
)
def test_the_check_before_sending_catches(
    damage: Callable[[Dataset], None], fault: str, headers: Headers, tmp_path: Path
) -> None:
    made = context(headers, nodule(headers))
    [path] = save(BoxReportWriter(), made, tmp_path)
    written = pydicom.dcmread(path)
    damage(written)
    written.save_as(path)
    with pytest.raises(ResultError, match=fault):
        BoxReportWriter().check(path, made)
