from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.byte_range import ByteRange, open_range

CONTENT = bytes(range(100))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "pack"
    path.write_bytes(CONTENT)
    return path


POSITIONS = st.integers(0, 120)
LENGTHS = st.none() | POSITIONS


@given(POSITIONS, LENGTHS, st.lists(st.tuples(POSITIONS, st.integers(-1, 120)), max_size=5))
def test_a_range_reads_like_a_file_of_just_these_bytes(
    path: Path, offset: int, length: int | None, reads: list[tuple[int, int]]
) -> None:
    expected = CONTENT[offset:] if length is None else CONTENT[offset : offset + length]
    with open_range(path, offset, length) as stream:
        assert stream.seek(0, io.SEEK_END) == len(expected)
        for position, count in reads:
            stream.seek(position)
            end = None if count < 0 else position + count
            assert stream.read(count) == expected[position:end]


@given(POSITIONS, LENGTHS, POSITIONS, POSITIONS)
def test_reads_of_chosen_bytes_end_where_the_range_ends(
    path: Path, offset: int, length: int | None, position: int, count: int
) -> None:
    expected = CONTENT[offset:] if length is None else CONTENT[offset : offset + length]
    target = bytearray(count)
    with ByteRange(path, offset, length) as stream:
        assert stream.size == len(expected)
        assert stream.read_at(position, count) == expected[position : position + count]
        found = stream.fill(memoryview(target), position)
    assert target[:found] == expected[position : position + count]
    assert target[found:] == bytes(count - found)


def test_a_range_of_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_range(tmp_path / "none")
