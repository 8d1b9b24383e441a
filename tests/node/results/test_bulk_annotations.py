from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from engines.findings import Code, Measurement, Outlines, SlideAnalysis
from engines.images import SourceFrame
from node.interfaces import ResultContext, ResultError
from node.results.bulk_annotations import BulkAnnotationsWriter
from node.results.text_report import TextReportWriter
from tests.node.results.building import context, refusal
from tests.node.results.validators import DCIODVFY_ACCEPTED, dciodvfy
from tests.slides import make_slide

ITS_OWN = (DCIODVFY_ACCEPTED["coordinates in a plane"], DCIODVFY_ACCEPTED["VAL-01"])
NUCLEUS = Code("84640000", "SCT", "Nucleus")


def outlined(tmp_path: Path) -> ResultContext:
    header = pydicom.dcmread(make_slide(tmp_path / "slide.dcm"), stop_before_pixels=True)
    source = SourceFrame(
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        series_instance_uid=str(header.SeriesInstanceUID),
    )
    square = np.array([[10.0, 20], [18, 20], [18, 28], [10, 28]])
    count = Measurement(
        name=Code("COUNT", "99WETREAD", "Number of outlined objects"), value=2,
        unit=Code("1", "UCUM", "no units"),
    )  # fmt: skip
    outlines = Outlines(
        key="nuclei",
        label="Nuclei",
        category=Code("91723000", "SCT", "Anatomical Structure"),
        type=NUCLEUS,
        colour=(60, 220, 120),
        polygons=(square, square[:3] + 40.5),
        areas=np.array([16.0, 8.0]),
        measurements=(count,),
    )
    analysis = SlideAnalysis(sources=(source,), findings=(outlines,), sought=(NUCLEUS,))
    return context((header,), analysis)


def saved(made: ResultContext, folder: Path) -> Path:
    (dataset,) = BulkAnnotationsWriter().write(made)
    path = folder / "annotations.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_polygons_and_areas_come_back_as_they_were(tmp_path: Path) -> None:
    """WSM-03: in pixels of the total pixel matrix."""
    made = outlined(tmp_path)
    path = saved(made, tmp_path)
    BulkAnnotationsWriter().check(path, made)
    written = pydicom.dcmread(path)
    (group,) = written.AnnotationGroupSequence
    assert (group.NumberOfAnnotations, group.GraphicType) == (2, "POLYGON")
    assert group.AnnotationPropertyTypeCodeSequence[0].CodeValue == "84640000"
    assert written.AnnotationCoordinateType == "2D"
    assert written.PixelOriginInterpretation == "VOLUME"
    said = [line for line in dciodvfy(path) if not any(word in line for word in ITS_OWN)]
    assert not said


def test_a_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    made = outlined(tmp_path)
    first = saved(made, tmp_path).read_bytes()
    assert saved(made, tmp_path).read_bytes() == first


def test_another_polygon_or_area_than_was_found_is_not_sent(tmp_path: Path) -> None:
    made = outlined(tmp_path)
    path = saved(made, tmp_path)
    assert isinstance(made.outcome, SlideAnalysis)
    (outlines,) = made.outcome.findings
    moved = replace(outlines, polygons=(outlines.polygons[0] + 1, outlines.polygons[1]))
    fewer = replace(outlines, polygons=outlines.polygons[:1], areas=outlines.areas[:1])
    larger = replace(outlines, areas=outlines.areas + 1)
    for wrong, why in ((moved, "polygons"), (fewer, "polygons"), (larger, "areas")):
        other = replace(made, outcome=replace(made.outcome, findings=(wrong,)))
        with pytest.raises(ResultError, match=why):
            BulkAnnotationsWriter().check(path, other)


def test_only_a_slide_with_outlines_has_annotations(tmp_path: Path) -> None:
    made = outlined(tmp_path)
    assert isinstance(made.outcome, SlideAnalysis)
    writer = BulkAnnotationsWriter()
    assert writer.handles(made.outcome)
    assert not writer.handles(replace(made.outcome, findings=()))
    assert not writer.handles(refusal())


def test_the_report_tells_of_what_was_counted(tmp_path: Path) -> None:
    (report,) = TextReportWriter().write(outlined(tmp_path))
    said = [item.TextValue for part in report.ContentSequence
            for item in part.get("ContentSequence", ()) if item.ValueType == "TEXT"]  # fmt: skip
    assert "Nuclei: Number of outlined objects 2." in said
