"""Instances that lie beside others in one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from engines.images import InstanceFile, Volume
from engines.refusals import Reason, SeriesRefusedError
from engines.series import read_volume
from tests.factories import instance_files, make_ct_series, make_enhanced_ct

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)


def packed(pack: Path, files: list[InstanceFile]) -> list[InstanceFile]:
    """Write instances behind each other, the last one first, with other bytes between them."""
    found = []
    with pack.open("wb") as stream:
        for file in reversed(files):
            stream.write(b"DICM, but not of a file")
            content = file.path.read_bytes()
            found.append(replace(file, path=pack, offset=stream.tell(), length=len(content)))
            stream.write(content)
    return found


def recode(path: Path, syntax: UID) -> None:
    dataset = dcmread(path)
    if syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    elif not syntax.is_little_endian:
        dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
    for _ in dataset.iterall():
        pass  # values are decoded when they are looked at, and can then be written in another order
    dataset.file_meta.TransferSyntaxUID = syntax
    order, implicit = syntax.is_little_endian, syntax.is_implicit_VR
    dcmwrite(path, dataset, implicit_vr=implicit, little_endian=order, force_encoding=True)


def assert_same(one: Volume, other: Volume) -> None:
    assert one.voxels.dtype == other.voxels.dtype
    assert np.array_equal(one.voxels, other.voxels)
    assert np.array_equal(one.valid, other.valid)
    assert (one.grid, one.sources, one.unit) == (other.grid, other.sources, other.unit)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_series_in_a_pack_reads_as_the_same_files(tmp_path: Path, syntax: UID) -> None:
    paths = make_ct_series(tmp_path / "files", slices=3, rows=32, columns=48, noise=20)
    for path in paths:
        recode(path, syntax)
    files = instance_files(paths)
    assert_same(read_volume(packed(tmp_path / "pack", files)), read_volume(files))


def test_an_enhanced_image_in_a_pack_reads_as_the_same_file(tmp_path: Path) -> None:
    files = instance_files([make_enhanced_ct(tmp_path / "one.dcm", slices=3, rows=8, columns=8)])
    assert_same(read_volume(packed(tmp_path / "pack", files * 2)[:1]), read_volume(files))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_short_instance_does_not_borrow_the_bytes_of_its_neighbour(
    tmp_path: Path, syntax: UID
) -> None:
    (path,) = make_ct_series(tmp_path / "files", slices=1, rows=32, columns=48, noise=20)
    recode(path, syntax)
    (file,) = instance_files([path])
    content = path.read_bytes()
    pack = tmp_path / "pack"
    pack.write_bytes(content * 2)
    whole = replace(file, path=pack, offset=len(content), length=None)
    assert_same(read_volume([whole]), read_volume([file]))
    with pytest.raises(SeriesRefusedError) as caught:
        read_volume([replace(file, path=pack, offset=0, length=len(content) - 100)])
    path.write_bytes(content[:-100])
    with pytest.raises(SeriesRefusedError) as alone:
        read_volume([file])
    assert (caught.value.reason, caught.value.detail) == (alone.value.reason, alone.value.detail)


def test_the_limit_is_on_the_instance_and_not_on_its_pack(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path / "files", slices=8, rows=128, columns=128)
    files = packed(tmp_path / "pack", instance_files(paths))
    limit = 8 * 128 * 128 * 2
    assert (tmp_path / "pack").stat().st_size > limit
    assert read_volume(files, byte_limit=limit).grid.shape == (8, 128, 128)
    with pytest.raises(SeriesRefusedError) as caught:
        read_volume([replace(files[0], length=None)], byte_limit=limit)
    assert caught.value.reason is Reason.TOO_LARGE
