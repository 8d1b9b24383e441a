"""Pictures of one frame each and of many: both are drawn alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from engines.findings import Analysis
from node.interfaces import NoSourceImages, ResultContext, ResultError, ResultWriter
from node.results._capture import PICTURES, told
from node.results.multiframe_capture import MultiframeCaptureWriter
from node.results.secondary_capture import SecondaryCaptureWriter
from tests.node.results.awkward import AWKWARD, awkward_series
from tests.node.results.building import (
    analysis,
    context,
    nothing_found,
    refusal,
    segment,
    series,
)
from tests.node.results.pictured import (
    SOURCES,
    again,
    nothing_on_ct,
    on_cine,
    on_ct,
    on_enhanced,
    on_radiograph,
    save,
    with_images,
)
from tests.node.results.test_validators import SOURCES_OWN_FAULTS
from tests.node.results.validators import LATERALITY_UNKNOWN, dcentvfy, dciodvfy

WRITERS = [SecondaryCaptureWriter(), MultiframeCaptureWriter()]
ORANGE, BLUE = (220, 120, 40), (30, 90, 200)

Rgb = npt.NDArray[np.uint8]


def pictures(made: ResultContext, folder: Path) -> list[Dataset]:
    """Write the series and read it back."""
    return [pydicom.dcmread(path) for path in save(SecondaryCaptureWriter(), made, folder / "out")]


def coloured(pixels: Rgb, colour: tuple[int, int, int]) -> tuple[float, float, float, float]:
    """Return where a colour begins and ends: left, top, right, bottom."""
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_sc_01_a_card_comes_first_and_images_follow_in_the_order_of_slices(
    tmp_path: Path,
) -> None:
    made = on_ct(tmp_path)
    card, *shown = pictures(made, tmp_path)
    assert card.ImageComments == "Summary"
    assert len(card.SourceImageSequence) == len(made.sources)
    (named,) = card.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in named.ReferencedInstanceSequence] == [
        source.SOPInstanceUID for source in made.sources
    ]
    assert [int(item.InstanceNumber) for item in (card, *shown)] == [1, 2, 3, 4, 5]
    assert [item.SourceImageSequence[0].ReferencedSOPInstanceUID for item in shown] == [
        source.SOPInstanceUID for source in made.sources[1:5]
    ]
    assert len({str(item.SeriesInstanceUID) for item in (card, *shown)}) == 1


def test_sc_01_pictures_are_rgb_and_their_pixels_are_square(tmp_path: Path) -> None:
    """The source's are twice as high as wide: 48 rows of 4 mm, 40 columns of 2 mm."""
    _, _, shown, *_ = pictures(on_ct(tmp_path), tmp_path)
    assert (shown.PhotometricInterpretation, shown.BitsStored) == ("RGB", 8)
    across, down = shown.PixelSpacing
    assert across == down == pytest.approx(40 * 2 / 512)
    left, _, right, _ = coloured(shown.pixel_array[:-60], BLUE)  # the left half of it
    assert (right - left) * across == pytest.approx(40, abs=1)
    assert list(shown.PatientOrientation) == ["L", "P"]


def test_obj_20_what_is_burned_in_is_said(tmp_path: Path) -> None:
    for item in pictures(on_ct(tmp_path), tmp_path):
        assert item.BurnedInAnnotation == "YES"
        assert list(item.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert item.ConversionType == "WSD"
        assert item.Modality == "OT"
        assert "unverified" in item.DerivationDescription
        for source in item.get("SourceImageSequence", ()):
            assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_obj_20_no_name_of_a_patient_is_burned_in(tmp_path: Path) -> None:
    """Another patient, and the same words in the same places."""

    def other(dataset: Dataset, _: int) -> None:
        dataset.PatientName, dataset.PatientID = "Somebody^Else", "OTHER-7"

    one = pictures(on_ct(tmp_path / "one"), tmp_path / "one")
    two = pictures(on_ct(tmp_path / "two", other), tmp_path / "two")
    assert one[0].PatientName != two[0].PatientName
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(first.pixel_array, second.pixel_array)


def test_view_03_the_card_says_by_what_on_what_and_when(tmp_path: Path) -> None:
    """What is on it cannot be read back: these are the words that are drawn."""
    words = told(on_ct(tmp_path))
    assert words[0] == "AI RESULT - PRELIMINARY - NOT VERIFIED BY A PHYSICIAN."
    for said in (
        'Analysed: CT series 1 "Synthetic body", 6 instances.',
        f"Engine: lung-seg 1.2.0, package SHA-256 {'ab' * 32}.",
        "Made 2026-01-02 03:04 UTC, revision 1 of the study.",
    ):
        assert said in words


def test_outlines_lie_around_the_masks(tmp_path: Path) -> None:
    headers = series(tmp_path / "source", slices=3)
    mask = np.zeros((3, 48, 40), np.bool_)
    mask[1, 12:24, 10:30] = True
    found = segment("one", mask)
    outcome = replace(analysis(headers), findings=(found,))
    made = with_images(context(headers, outcome), tmp_path / "source")
    _, shown = pictures(made, tmp_path)
    left, top, right, bottom = coloured(shown.pixel_array[:-60], ORANGE)
    scale = 512 / 40
    above = shown.Rows - 48 * scale
    assert left == pytest.approx(10 * scale, abs=2)
    assert right == pytest.approx(30 * scale, abs=2)
    assert bottom - top == pytest.approx(12 * scale, abs=3)
    assert 12 * scale < top < 12 * scale + above


def test_grey_is_that_of_the_source_where_no_outline_is(tmp_path: Path) -> None:
    made = on_ct(tmp_path)
    _, shown, *_ = pictures(made, tmp_path)
    assert isinstance(made.outcome, Analysis)
    source = made.images.shown(made.outcome.sources[1])
    pixels = shown.pixel_array
    grey = pixels[(pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])]
    assert set(np.unique(source)) <= set(np.unique(grey))


def test_every_picture_bears_the_same_statement(tmp_path: Path) -> None:
    """A statement that cannot be read back is compared as pixels: the band is there on each."""
    drawn = [item.pixel_array for item in pictures(on_ct(tmp_path), tmp_path)]
    band = drawn[0][:22]
    assert (band == (255, 204, 0)).all(axis=-1).sum() > 300
    for other in drawn[1:]:
        assert np.array_equal(other[:22], band)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_captures_conform_to_their_iod_and_are_the_same_bytes_again(
    writer: ResultWriter, name: str, tmp_path: Path
) -> None:
    made = SOURCES[name](tmp_path)
    first = save(writer, made, tmp_path / "first")
    second = save(writer, made, tmp_path / "second")
    assert len(first) == len(second)
    for path, other in zip(first, second, strict=True):
        assert not [line for line in dciodvfy(path) if LATERALITY_UNKNOWN not in line]
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_nothing_found_and_not_analysed_are_a_card_each(
    writer: ResultWriter, tmp_path: Path
) -> None:
    """Invariant 15: none of the three may be silent."""
    nothing = nothing_on_ct(tmp_path)
    refused = again(nothing, refusal())
    drawn = []
    for name, made in (("nothing", nothing), ("refused", refused)):
        assert writer.handles(made.outcome)
        (path,) = save(writer, made, tmp_path / name)
        assert not dciodvfy(path)
        drawn.append(pydicom.dcmread(path).pixel_array)
    nothing_found_card, refused_card = drawn
    assert not np.array_equal(nothing_found_card, refused_card)


@pytest.mark.parametrize("name", AWKWARD)
def test_obj_03_awkward_headers_make_valid_captures(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    made = with_images(context(headers, analysis(headers)), tmp_path / "source")
    accepted = (*SOURCES_OWN_FAULTS.get(name, ()), LATERALITY_UNKNOWN)
    for writer in WRITERS:
        path = save(writer, made, tmp_path / "out")[-1]
        faults = [line for line in dciodvfy(path) if not any(word in line for word in accepted)]
        assert not faults


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_captures_agree_with_their_sources(writer: ResultWriter, tmp_path: Path) -> None:
    paths = save(writer, on_ct(tmp_path), tmp_path / "out")
    assert not dcentvfy([*sorted((tmp_path / "source").iterdir()), *paths])


def test_the_frames_of_one_object_are_the_pictures_of_the_series(tmp_path: Path) -> None:
    """SC-01."""
    made = on_enhanced(tmp_path)
    single = np.stack([item.pixel_array for item in pictures(made, tmp_path)])
    (path,) = save(MultiframeCaptureWriter(), made, tmp_path / "multi")
    dataset = pydicom.dcmread(path)
    assert np.array_equal(dataset.pixel_array, single)
    assert dataset.NumberOfFrames == len(single)
    shown = [int(item.ReferencedFrameNumber) for item in dataset.SourceImageSequence]
    assert shown == [5, 4, 3, 2]


def test_uid_04_a_later_revision_stands_behind_in_the_same_series(tmp_path: Path) -> None:
    made = on_ct(tmp_path)
    later = replace(made, generation=2, job_key=f"{made.job_key}|2")
    first, second = (pictures(item, tmp_path / str(item.generation)) for item in (made, later))
    assert {item.SeriesInstanceUID for item in [*first, *second]} == {first[0].SeriesInstanceUID}
    numbers = [int(item.InstanceNumber) for item in [*first, *second]]
    assert numbers == [1, 2, 3, 4, 5, 1001, 1002, 1003, 1004, 1005]


def test_of_many_images_some_are_chosen_and_the_card_says_so(tmp_path: Path) -> None:
    headers = series(tmp_path / "source", slices=40, rows=16, columns=16)
    mask = np.zeros((40, 16, 16), np.bool_)
    mask[:, 2:6, 2:6] = True
    mask[17, 2:9, 2:9] = True
    outcome = replace(analysis(headers), findings=(segment("one", mask),))
    made = with_images(context(headers, outcome), tmp_path / "source")
    card, *shown = pictures(made, tmp_path)
    assert len(shown) == PICTURES
    largest = headers[17].SOPInstanceUID
    assert largest in [item.SourceImageSequence[0].ReferencedSOPInstanceUID for item in shown]
    few = with_images(context(headers[:1], nothing_found(headers)), tmp_path / "source")
    assert not np.array_equal(card.pixel_array, pictures(few, tmp_path / "few")[0].pixel_array)


def test_a_cine_keeps_its_colours_under_the_words(tmp_path: Path) -> None:
    _, shown = pictures(on_cine(tmp_path), tmp_path)
    assert (shown.pixel_array == (120, 90, 60)).all(axis=-1).sum() > 10_000


def test_pix_01_monochrome1_is_shown_in_display_polarity(tmp_path: Path) -> None:
    def inverted(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    _, shown = pictures(on_radiograph(tmp_path, inverted), tmp_path)
    middle = shown.pixel_array[shown.Rows // 2]
    assert middle[10, 0] > middle[-10, 0]


def test_lossy_sources_make_lossy_pictures(tmp_path: Path) -> None:
    def lossy(dataset: Dataset) -> None:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = 12
        dataset.LossyImageCompressionMethod = "ISO_15444_1"

    card, shown = pictures(on_radiograph(tmp_path, lossy), tmp_path)
    assert "LossyImageCompression" not in card
    assert (shown.LossyImageCompression, shown.LossyImageCompressionRatio) == ("01", 12)


def test_an_image_that_cannot_be_shown_is_told_of(tmp_path: Path) -> None:
    made = on_radiograph(tmp_path)
    path = tmp_path / "source" / "1.dcm"
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(path)
    assert len(pictures(made, tmp_path)) == 2  # a page of words in its place
    (card,) = pictures(replace(made, images=NoSourceImages()), tmp_path / "none")
    assert card.ImageComments == "Summary"


def _paint(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-300] + bytes(range(100)) * 3


def _rename(dataset: Dataset) -> None:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")


def _strip(dataset: Dataset) -> None:
    del dataset.ConversionType


@pytest.mark.parametrize(
    ("damage", "fault"),
    [(_paint, "pixels"), (_rename, "none of the pictures"), (_strip, "ConversionType")],
)
def test_obj_22_a_picture_that_differs_is_found_out(
    damage: Callable[[Dataset], None], fault: str, tmp_path: Path
) -> None:
    made = on_ct(tmp_path)
    path = save(SecondaryCaptureWriter(), made, tmp_path / "out")[1]
    dataset = pydicom.dcmread(path)
    damage(dataset)
    dataset.save_as(path)
    with pytest.raises(ResultError, match=fault):
        SecondaryCaptureWriter().check(path, made)


def test_captures_are_made_only_where_they_are_asked_for() -> None:
    assert not any(writer.by_default for writer in WRITERS)
