from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from engines.images import InstanceFile
from node.field_values import FieldValuesError
from node.source_headers import OWN_KEYWORDS, read_sources
from tests.factories import instance_files, make_ct_series, make_enhanced_ct

SAMPLES = Path(DATA_ROOT) / "test_files"
"""The files that pydicom brings along; others it would fetch."""


def whole(paths: Sequence[Path]) -> list[Dataset]:
    return [dcmread(path, stop_before_pixels=True) for path in paths]


def assert_own_values_are_those_of_pydicom(paths: Sequence[Path]) -> None:
    for read, header in zip(read_sources(instance_files(paths)), whole(paths), strict=True):
        for keyword in OWN_KEYWORDS:
            assert (keyword in read) == (keyword in header)
            assert read.get(keyword) == header.get(keyword)
            assert type(read.get(keyword)) is type(header.get(keyword))


def test_the_first_of_each_series_is_read_whole_and_of_others_their_own(tmp_path: Path) -> None:
    paths = [
        *make_ct_series(tmp_path / "one", slices=3, rows=8, columns=8),
        *make_ct_series(tmp_path / "two", slices=3, rows=8, columns=8, seed=5, series=2),
    ]
    read = read_sources(instance_files(paths))
    assert ["PatientName" in header for header in read] == [True, False, False] * 2
    assert read[0] == whole(paths)[0]
    assert_own_values_are_those_of_pydicom(paths)


def test_text_is_read_in_the_character_set_of_its_header(tmp_path: Path) -> None:
    def say(dataset: Dataset, _: int) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PositionReferenceIndicator = "Köpfchen"

    paths = make_ct_series(tmp_path, slices=2, rows=8, columns=8, modify=say)
    assert_own_values_are_those_of_pydicom(paths)
    _, second = read_sources(instance_files(paths))
    assert second.PositionReferenceIndicator == "Köpfchen"


@pytest.mark.filterwarnings("ignore")  # some are there to be warned of
def test_own_values_of_images_from_many_makers_are_those_of_pydicom() -> None:
    compared = 0
    for path in sorted(SAMPLES.glob("*.dcm")):
        try:
            header = dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, ValueError, EOFError):
            continue
        if "SOPInstanceUID" in header.file_meta or "SOPInstanceUID" in header:
            file = InstanceFile(path=path, sop_instance_uid="1.2", sop_class_uid="1.2")
            _, second = read_sources([file, file])
            for keyword in OWN_KEYWORDS:
                assert (keyword in second, second.get(keyword)) == (
                    keyword in header,
                    header.get(keyword),
                ), path
            compared += 1
    assert compared > 40


def test_what_is_multi_frame_or_not_plain_is_read_whole(tmp_path: Path) -> None:
    enhanced = make_enhanced_ct(tmp_path / "e.dcm", slices=3, rows=8, columns=8)
    read = read_sources(instance_files([enhanced, enhanced]))
    assert [len(header.PerFrameFunctionalGroupsSequence) for header in read] == [3, 3]
    paths = make_ct_series(tmp_path / "ct", slices=2, rows=8, columns=8)
    odd = dcmread(paths[1])
    odd.SpecificCharacterSet = "ISO 2022 IR 13"
    odd.save_as(paths[1])
    assert_own_values_are_those_of_pydicom(paths)


def test_a_header_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    files = instance_files(make_ct_series(tmp_path, slices=2, rows=8, columns=8))
    files[1].path.write_bytes(b"nothing")
    with pytest.raises(FieldValuesError):
        read_sources(files)
