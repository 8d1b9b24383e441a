from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    GrayscaleSoftcopyPresentationStateStorage,
)

from node.interfaces import NoSourceImages, ResultContext, ResultError
from node.results.presentation_state import PresentationStateWriter
from node.results.segmentation import SegmentationWriter
from tests.node.results.awkward import AWKWARD, awkward_series
from tests.node.results.building import analysis, context, nothing_found, refusal, segment, series
from tests.node.results.pictured import (
    SOURCES,
    again,
    on_cine,
    on_ct,
    on_enhanced,
    on_radiograph,
    on_slide,
    save,
    with_images,
)
from tests.node.results.test_validators import SOURCES_OWN_FAULTS
from tests.node.results.validators import LATERALITY_UNKNOWN, dcentvfy, dciodvfy, dcmpschk

DRAWN = [name for name in SOURCES if name != "slide"]


def only(made: ResultContext, folder: Path) -> Dataset:
    (path,) = save(PresentationStateWriter(), made, folder / "out")
    return pydicom.dcmread(path)


def texts(item: Dataset) -> list[str]:
    return [str(text.UnformattedTextValue) for text in item.TextObjectSequence]


def test_pr_01_each_image_with_a_finding_has_its_outlines_on_the_layer_of_the_ai(
    tmp_path: Path,
) -> None:
    made = on_ct(tmp_path)
    state = only(made, tmp_path)
    assert state.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage
    assert state.Modality == "PR"
    (layer,) = state.GraphicLayerSequence
    assert (layer.GraphicLayer, layer.GraphicLayerOrder) == ("AI", 1)
    assert layer.GraphicLayerRecommendedDisplayCIELabValue
    drawn = {
        item.ReferencedImageSequence[0].ReferencedSOPInstanceUID
        for item in state.GraphicAnnotationSequence
    }
    assert drawn == {source.SOPInstanceUID for source in made.sources[1:5]}
    (named,) = state.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in named.ReferencedImageSequence} == drawn
    for item in state.GraphicAnnotationSequence:
        assert {shape.GraphicType for shape in item.GraphicObjectSequence} == {"POLYLINE"}
        assert {shape.GraphicAnnotationUnits for shape in item.GraphicObjectSequence} == {"PIXEL"}


def test_pr_01_and_obj_17_outlines_have_the_tracking_of_the_segments(tmp_path: Path) -> None:
    made = on_ct(tmp_path)
    (segmentation,) = SegmentationWriter().write(made)
    named = {(item.TrackingID, item.TrackingUID) for item in segmentation.SegmentSequence}
    state = only(made, tmp_path)
    shapes = [
        shape for item in state.GraphicAnnotationSequence for shape in item.GraphicObjectSequence
    ]
    assert {(shape.TrackingID, shape.TrackingUID) for shape in shapes} == named
    assert len({str(shape.LineStyleSequence[0].PatternOnColorCIELabValue) for shape in shapes}) == 2


def test_pr_01_each_finding_is_told_once_and_the_statement_on_every_image(tmp_path: Path) -> None:
    state = only(on_ct(tmp_path), tmp_path)
    said = [texts(item) for item in state.GraphicAnnotationSequence]
    assert {words[0] for words in said} == {
        "AI - PRELIMINARY - UNVERIFIED - lung-seg 1.2.0 - Not for clinical use."
    }
    told = [words for image in said for words in image[1:]]
    assert sorted(words.partition(":")[0] for words in told) == ["Left lung one", "Left lung two"]
    assert "Volume 1235 ml" in told[0]


def test_pr_01_the_window_is_that_of_the_source(tmp_path: Path) -> None:
    state = only(on_ct(tmp_path), tmp_path)
    source = pydicom.dcmread(tmp_path / "source" / "0001.dcm")
    (voi,) = state.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (source.WindowCenter, source.WindowWidth)
    assert "ReferencedImageSequence" not in voi
    assert (state.RescaleSlope, state.RescaleIntercept) == (1, -1024)
    assert state.PresentationLUTShape == "IDENTITY"


def test_pixels_keep_their_shape(tmp_path: Path) -> None:
    (area,) = only(on_ct(tmp_path), tmp_path).DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [4, 2]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [40, 48]


def test_frames_of_an_enhanced_image_keep_their_own_windows(tmp_path: Path) -> None:
    state = only(on_enhanced(tmp_path), tmp_path)
    (series_item,) = state.ReferencedSeriesSequence
    (image,) = series_item.ReferencedImageSequence
    assert sorted(image.ReferencedFrameNumber) == [2, 3, 4, 5]
    windows = {
        int(item.ReferencedImageSequence[0].ReferencedFrameNumber): float(item.WindowCenter)
        for item in state.SoftcopyVOILUTSequence
    }
    assert windows == {2: 41, 3: 42, 4: 43, 5: 44}


def test_pix_02_images_with_a_rescale_each_are_windowed_in_stored_values(tmp_path: Path) -> None:
    def slopes(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope = index + 1
        dataset.RescaleIntercept = -1000
        dataset.WindowCenter, dataset.WindowWidth = 100.5, 601

    state = only(on_ct(tmp_path, slopes), tmp_path)
    assert "RescaleSlope" not in state
    by_image = {
        item.ReferencedImageSequence[0].ReferencedSOPInstanceUID: item
        for item in state.SoftcopyVOILUTSequence
    }
    for index in range(1, 5):
        source = pydicom.dcmread(tmp_path / "source" / f"{index:04d}.dcm")
        item = by_image[source.SOPInstanceUID]
        slope, half = index + 1, (float(item.WindowWidth) - 1) / 2
        black = float(item.WindowCenter) - 0.5 - half
        white = float(item.WindowCenter) - 0.5 + half
        assert black * slope - 1000 == pytest.approx(-200)
        assert white * slope - 1000 == pytest.approx(400)


def test_pix_01_monochrome1_is_inverted_after_its_window(tmp_path: Path) -> None:
    def inverted(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    assert only(on_radiograph(tmp_path, inverted), tmp_path).PresentationLUTShape == "INVERSE"


def test_pix_03_a_table_of_the_source_is_kept(tmp_path: Path) -> None:
    def table(dataset: Dataset) -> None:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [256, 0, 8])
        item.add_new("LUTData", "US", list(range(256)))
        dataset.VOILUTSequence = [item]
        del dataset.WindowCenter, dataset.WindowWidth

    (voi,) = only(on_radiograph(tmp_path, table), tmp_path).SoftcopyVOILUTSequence
    (kept,) = voi.VOILUTSequence
    assert list(kept.LUTDescriptor) == [256, 0, 8]
    assert np.frombuffer(kept.LUTData, "<u2").tolist() == list(range(256))


def test_a_classification_is_written_on_its_image(tmp_path: Path) -> None:
    made = on_radiograph(tmp_path)
    (item,) = only(made, tmp_path).GraphicAnnotationSequence
    image = item.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert image == made.sources[0].SOPInstanceUID
    assert "GraphicObjectSequence" not in item
    assert texts(item)[1].startswith("Nodule on image 1: Certainty of Finding 91.51 %")


def test_an_image_in_colours_gets_a_color_softcopy_presentation_state(tmp_path: Path) -> None:
    """PR-01."""
    state = only(on_cine(tmp_path), tmp_path)
    assert state.SOPClassUID == ColorSoftcopyPresentationStateStorage
    assert state.ICCProfile[36:40] == b"acsp"
    assert "PresentationLUTShape" not in state
    (item,) = state.GraphicAnnotationSequence
    assert item.ReferencedImageSequence[0].ReferencedFrameNumber == 2


def test_images_of_two_sizes_get_a_presentation_state_each(tmp_path: Path) -> None:
    made = on_radiograph(tmp_path)
    path = tmp_path / "source" / "2.dcm"
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.PixelData = 128, dataset.PixelData[: 128 * 240 * 2]
    dataset.save_as(path)
    outcome = made.outcome
    found = replace(outcome.findings[0], image=1)  # type: ignore[union-attr]
    both = replace(outcome, findings=(*outcome.findings, found))  # type: ignore[union-attr,arg-type]
    paths = save(PresentationStateWriter(), again(made, both), tmp_path / "out")
    labels = [pydicom.dcmread(path).ContentLabel for path in paths]
    assert labels == ["AI_FINDINGS", "AI_FINDINGS_2"]


def test_nothing_is_drawn_where_nothing_is_to_be_drawn(tmp_path: Path) -> None:
    headers = series(tmp_path / "source")
    writer = PresentationStateWriter()
    assert not writer.by_default
    assert not writer.handles(nothing_found(headers))
    assert not writer.handles(refusal())
    assert not writer.handles(on_slide(tmp_path / "slide").outcome)


@pytest.mark.parametrize("name", DRAWN)
def test_states_conform_to_their_iod_and_are_the_same_bytes_again(
    name: str, tmp_path: Path
) -> None:
    """VAL-01, VAL-04."""
    made = SOURCES[name](tmp_path)
    first = save(PresentationStateWriter(), made, tmp_path / "first")
    second = save(PresentationStateWriter(), made, tmp_path / "second")
    for path, other in zip(first, second, strict=True):
        assert not dciodvfy(path)
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["axial CT", "radiograph"])
def test_dcmtk_finds_the_states_of_grey_images_valid(name: str, tmp_path: Path) -> None:
    for path in save(PresentationStateWriter(), SOURCES[name](tmp_path), tmp_path / "out"):
        assert not dcmpschk(path)


@pytest.mark.parametrize("name", AWKWARD)
def test_obj_03_awkward_headers_make_valid_states(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    made = with_images(context(headers, analysis(headers)), tmp_path / "source")
    accepted = (*SOURCES_OWN_FAULTS.get(name, ()), LATERALITY_UNKNOWN)
    for path in save(PresentationStateWriter(), made, tmp_path / "out"):
        faults = [line for line in dciodvfy(path) if not any(word in line for word in accepted)]
        assert not faults


@pytest.mark.parametrize(
    "lost", ["WindowWidth", "WindowCenter", "RescaleSlope", "RescaleIntercept"]
)
def test_obj_03_half_of_a_pair_makes_a_whole_one_or_none(lost: str, tmp_path: Path) -> None:
    """A window without its width, a slope without its intercept: neither may be copied so."""

    def halve(dataset: Dataset, _: int) -> None:
        delattr(dataset, lost)

    state = only(on_ct(tmp_path, halve), tmp_path)
    for voi in state.get("SoftcopyVOILUTSequence", ()):
        assert ("WindowCenter" in voi) == ("WindowWidth" in voi)
    assert ("RescaleSlope" in state) == ("RescaleIntercept" in state)


def test_val_04_a_state_agrees_with_its_sources(tmp_path: Path) -> None:
    paths = save(PresentationStateWriter(), on_ct(tmp_path), tmp_path / "out")
    assert "ContentDate" not in pydicom.dcmread(paths[0])
    assert not dcentvfy([*sorted((tmp_path / "source").iterdir()), *paths])


def _move(state: Dataset) -> None:
    shape = state.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    shape.GraphicData = [value + 1 for value in shape.GraphicData]


def _retell(state: Dataset) -> None:
    state.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue = "verified"


def _leave_out(state: Dataset) -> None:
    del state.GraphicAnnotationSequence[0]


def _swap(state: Dataset) -> None:
    one, other = state.GraphicAnnotationSequence[:2]
    one.ReferencedImageSequence, other.ReferencedImageSequence = (
        other.ReferencedImageSequence,
        one.ReferencedImageSequence,
    )


def _rename(state: Dataset) -> None:
    for item in state.GraphicAnnotationSequence:
        for shape in item.GraphicObjectSequence:
            shape.TrackingUID = "1.2.3"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_move, "outline"),
        (_retell, "words"),
        (_leave_out, "images that are drawn on differ"),
        (_swap, "another image"),
        (_rename, "outline"),
    ],
)
def test_obj_22_a_state_that_differs_from_the_outcome_is_found_out(
    damage: Callable[[Dataset], None], fault: str, tmp_path: Path
) -> None:
    made = on_ct(tmp_path)
    (path,) = save(PresentationStateWriter(), made, tmp_path / "out")
    state = pydicom.dcmread(path)
    damage(state)
    state.save_as(path)
    with pytest.raises(ResultError, match=fault):
        PresentationStateWriter().check(path, made)


def test_without_images_nothing_is_drawn_by_guess(tmp_path: Path) -> None:
    made = replace(on_ct(tmp_path), images=NoSourceImages())
    with pytest.raises(ResultError, match="not at hand"):
        PresentationStateWriter().write(made)


def test_an_outline_longer_than_a_value_may_be_is_drawn_in_pieces(tmp_path: Path) -> None:
    headers = series(tmp_path / "source", rows=300, columns=300, slices=2)
    comb = np.zeros((2, 300, 300), np.bool_)
    comb[0, 4:296:8] = True
    for column in range(4, 290, 4):
        comb[0, 5:296:8, column] = True
    comb[0, :, 100] = True
    found = replace(analysis(headers), findings=(segment("one", comb),))
    made = with_images(context(headers, found), tmp_path / "source")
    (item,) = only(made, tmp_path).GraphicAnnotationSequence
    counts = [int(shape.NumberOfGraphicPoints) for shape in item.GraphicObjectSequence]
    assert len(counts) > 1
    assert max(counts) * 2 * 4 < 1 << 16
