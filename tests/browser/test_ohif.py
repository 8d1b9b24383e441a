"""OHIF over this node's DICOMweb: it shows what its profile sends, and shows it in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset

import node.results
from engines.findings import Analysis, MaskArray, SlideAnalysis
from node.interfaces import ResultContext, ResultWriter
from node.plugins import discover
from node.result_profiles import kind_of, read_profiles, shipped_profiles
from node.results.box_report import BoxReportWriter
from node.results.segmentation import SegmentationWriter
from tests.browser.devtools import Page
from tests.browser.ohif import (
    NO_TOUR,
    Picture,
    Viewer,
    boxes,
    complaints,
    go_to,
    open_study,
    panel,
    place_on_canvas,
    see,
    segments,
    show_boxes,
    show_report,
    show_segmentation,
    show_stack,
)
from tests.factories import AXIAL, CORONAL, INTERCEPT, SAGITTAL
from tests.node.dicomweb.planted import PlantedWeb
from tests.node.results.building import (
    LUNG,
    OBLIQUE,
    Headers,
    context,
    frames_of,
    grid_of,
    refusal,
    segment,
    series,
)
from tests.node.results.pictured import (
    Build,
    again,
    nothing_on_ct,
    on_ct,
    on_radiograph,
    on_slide,
)
from tests.slides import TISSUE

SHAPE: Final = (14, 64, 48)
SPACING: Final = (5.0, 1.5, 2.5)
SLICES: Final = range(3, 10)
ORIENTATIONS: Final = {
    "axial": AXIAL,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "oblique": OBLIQUE,
    "axial, feet first": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "axial, prone": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
}
SQUARE: Final = (5.0, 1.5, 1.5)
PIXELS: Final = 2.0
HALF_BRIGHT: Final = 150
"""Between the block, which is white, and what is around it: air and soft tissue."""
LIGHT: Final = 0.002
"""Of a viewport with a picture, at least so much is not dark: a page of text has more."""
OF_PAGE: Final = 0.03
"""What a slide's tissue takes of the page at least; in small pictures at its side it has less."""

KINDS: Final[dict[str, Build]] = {
    "segments": on_ct,
    "nothing found": nothing_on_ct,
    "not analysed": lambda folder: again(nothing_on_ct(folder), refusal()),
    "classification": on_radiograph,
    "outlines on a slide": on_slide,
}


class Place(NamedTuple):
    """How the block lies in the patient."""

    orientation: tuple[float, ...]
    spacing: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Boxed:
    """A box on the canvas: left, top, right and bottom in pixels, as drawn and as it has to be."""

    made: ResultContext
    drawn: npt.NDArray[np.float64]
    truth: npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with Viewer() as served:
        yield served


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with Page(1000, 760) as opened:
        opened.run_first(NO_TOUR)
        yield opened


@pytest.fixture
def web(tmp_path: Path, viewer: Viewer) -> Iterator[PlantedWeb]:
    folder = tmp_path / "node"
    folder.mkdir()
    planted = PlantedWeb(folder)
    viewer.read_from(planted.serve(origins=[viewer.origin]))
    yield planted
    planted.close()


def staircase() -> MaskArray:
    """Make a block that moves from slice to slice, so that no flip or shift leaves it in place."""
    mask = np.zeros(SHAPE, dtype=np.bool_)
    for index in SLICES:
        mask[index, 8 + 2 * index : 18 + 2 * index, 6 + index : 20 + index] = True
    return mask


def _mark(dataset: Dataset, index: int) -> None:
    """Put the block into the image too, brighter than all else in it."""
    values = np.frombuffer(dataset.PixelData, "<i2").reshape(SHAPE[1:]).copy()
    values[staircase()[index]] = 3000 - INTERCEPT
    dataset.PixelData = values.tobytes()
    dataset.WindowCenter, dataset.WindowWidth = "1000", "4000"


def _centre(where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the middle of the pixels, as column and row."""
    assert where.any()
    rows, columns = np.nonzero(where)
    return np.array([columns.mean(), rows.mean()])


def _bright(picture: Picture) -> npt.NDArray[np.bool_]:
    return np.asarray(picture.min(axis=2) > 190)


def _coloured(picture: Picture) -> npt.NDArray[np.bool_]:
    values = picture.astype(np.int16)
    return np.asarray(values.max(axis=2) - values.min(axis=2) > 40)


def _middle_in_patient(headers: Headers, index: int) -> list[float]:
    """Return the middle of the block on a slice, from the headers and the mask alone."""
    grid = grid_of(headers)
    rows, columns = np.nonzero(staircase()[index])
    down = np.array(grid.column_direction) * SPACING[1] * rows.mean()
    along = np.array(grid.row_direction) * SPACING[2] * columns.mean()
    return [float(value) for value in np.array(grid.positions[index]) + down + along]


def _block(
    folder: Path, orientation: tuple[float, ...], spacing: tuple[float, float, float] = SPACING
) -> ResultContext:
    """Make a CT with the block in it, and find the block."""
    depth, rows, columns = SHAPE
    headers = series(
        folder,
        slices=depth,
        rows=rows,
        columns=columns,
        spacing=spacing,
        orientation=orientation,
        modify=_mark,
    )
    outcome = Analysis(
        grid=grid_of(headers),
        sources=frames_of(headers),
        findings=(segment("block", staircase(), colour=(220, 30, 30)),),
        sought=(LUNG,),
    )
    return context(headers, outcome)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_segmentation_lies_where_it_was_found(
    page: Page, viewer: Viewer, web: PlantedWeb, name: str, tmp_path: Path
) -> None:
    """VIEW-04: within two pixels, in any orientation, with another spacing along each axis."""
    found_in = _block(tmp_path / "ct", ORIENTATIONS[name])
    headers = found_in.sources
    [made] = SegmentationWriter().write(found_in)
    study = str(headers[0].StudyInstanceUID)
    web.receive(sorted((tmp_path / "ct").glob("*.dcm")))
    web.make(study, [made])
    open_study(page, viewer.origin, study, series=2)
    chosen = {index: str(headers[index].SOPInstanceUID) for index in (SLICES[0], SLICES[-1])}
    truth = {index: _centre(_bright(go_to(page, uid))) for index, uid in chosen.items()}
    show_segmentation(page, str(made.SeriesInstanceUID))
    assert segments(page) == ["Left lung block"]
    for index, uid in chosen.items():
        found = _centre(_coloured(go_to(page, uid)))
        asked = place_on_canvas(page, _middle_in_patient(headers, index))
        assert np.abs(found - truth[index]).max() < PIXELS
        assert np.abs(found - asked).max() < PIXELS
    page.screenshot(tmp_path / "ohif.png")
    empty = go_to(page, str(headers[SLICES[-1] + 1].SOPInstanceUID))
    assert not _coloured(empty).any()
    assert complaints(page) == []


def _bounds(picture: Picture) -> npt.NDArray[np.float64]:
    """Return left, top, right and bottom of the block in a picture, whose edges are smoothed."""
    rows, columns = np.nonzero(picture.min(axis=2) > HALF_BRIGHT)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)


def _open_boxes(page: Page, viewer: Viewer, web: PlantedWeb, folder: Path, place: Place) -> Boxed:
    """Open a CT with Segmentation and boxes; return where a box is drawn, and where it has to be.

    Only the largest slice has one: slices of the block are equally large, and the first counts.
    """
    made = _block(folder, *place)
    study = str(made.sources[0].StudyInstanceUID)
    [segmentation] = SegmentationWriter().write(made)
    [report] = BoxReportWriter().write(made)
    web.receive(sorted(folder.glob("*.dcm")))
    web.make(study, [segmentation, report])
    open_study(page, viewer.origin, study, series=3)
    first = str(made.sources[SLICES[0]].SOPInstanceUID)
    truth = _bounds(go_to(page, first))
    show_segmentation(page, str(segmentation.SeriesInstanceUID))
    show_boxes(page, str(report.SeriesInstanceUID))
    [drawn] = boxes(page)
    return Boxed(made=made, drawn=np.array(drawn), truth=truth)


def test_a_box_lies_where_it_was_found_and_is_among_the_measurements(
    page: Page, viewer: Viewer, web: PlantedWeb, tmp_path: Path
) -> None:
    """VIEW-04, SR-04, SR-05: within two pixels; OHIF takes it as a rectangle of its own."""
    opened = _open_boxes(page, viewer, web, tmp_path / "ct", Place(OBLIQUE, SQUARE))
    assert np.abs(opened.drawn - opened.truth).max() < PIXELS
    page.screenshot(tmp_path / "box.png")
    told = panel(page)
    first, second = (opened.made.sources[index] for index in SLICES[:2])
    assert "Lung" in told
    assert f"S: 1 I: {first.InstanceNumber}" in told
    go_to(page, str(second.SOPInstanceUID))
    assert boxes(page) == []
    middle = _centre(_coloured(go_to(page, str(first.SOPInstanceUID))))
    page.screenshot(tmp_path / "panel.png")
    [(left, top, right, bottom)] = boxes(page)
    assert np.abs(middle - [(left + right) / 2, (top + bottom) / 2]).max() < PIXELS
    assert segments(page) == ["Left lung block"]
    assert complaints(page) == []


def test_boxes_on_oblong_pixels_are_left_out_because_ohif_draws_them_elsewhere(
    page: Page, viewer: Viewer, web: PlantedWeb, tmp_path: Path
) -> None:
    """VIEW-02: the day this fails, the profile has no more need to leave them out."""
    opened = _open_boxes(page, viewer, web, tmp_path / "ct", Place(AXIAL, SPACING))
    assert np.abs(opened.drawn - opened.truth).max() > PIXELS
    assert "box_report" not in _sent(opened.made)


def _sent(made: ResultContext) -> dict[str, tuple[Dataset, ...]]:
    """Write every object of the `ohif` profile that can carry an outcome."""
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]
    profile = read_profiles([shipped_profiles()], frozenset(writers))["ohif"]
    sets = profile.sets(kind_of(made.outcome), frozenset(writers))
    named = [writers[name]() for name in sorted({name for each in sets for name in each})]
    return {writer.name: writer.write(made) for writer in named if writer.handles(made.outcome)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_of_its_profile_is_shown(
    page: Page, viewer: Viewer, web: PlantedWeb, kind: str, tmp_path: Path
) -> None:
    """VIEW-04: no black viewport and no error, for CT, radiograph or slide, whatever was found."""
    made = KINDS[kind](tmp_path)
    sent = _sent(made)
    study = str(made.sources[0].StudyInstanceUID)
    web.receive(sorted((tmp_path / "source").glob("*.dcm")))
    web.make(study, [dataset for each in sent.values() for dataset in each])
    open_study(page, viewer.origin, study, series=1 + len(sent))
    if isinstance(made.outcome, SlideAnalysis):
        see(page, TISSUE, OF_PAGE)
    page.screenshot(tmp_path / "source.png")
    assert {"secondary_capture", "text_report"} <= sent.keys()
    for name, objects in sent.items():
        shown = str(objects[0].SeriesInstanceUID)
        if name == "text_report":
            show_report(page, shown, "NOT VERIFIED BY A PHYSICIAN")
        elif name == "segmentation":
            show_segmentation(page, shown)
        else:
            show_stack(page, shown)
            pictures = [go_to(page, str(each.SOPInstanceUID)) for each in objects]
            assert min((picture.max(axis=2) > 60).mean() for picture in pictures) > LIGHT
        page.screenshot(tmp_path / f"{name}.png")
    assert complaints(page) == []
