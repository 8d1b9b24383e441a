from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from engines.images import InstanceFile, SourceFrame
from node.interfaces import NoSourceImages, PictureError
from node.source_images import FileImages
from tests.factories import instance_files, make_ct_series, make_enhanced_ct


def images_of(*paths: Path) -> tuple[FileImages, list[InstanceFile]]:
    files = instance_files(paths)
    return FileImages({file.sop_instance_uid: file for file in files}, byte_limit=1 << 24), files


def frame_of(file: InstanceFile, number: int | None = None) -> SourceFrame:
    return SourceFrame(
        sop_class_uid=file.sop_class_uid,
        sop_instance_uid=file.sop_instance_uid,
        series_instance_uid="1.2.3",
        frame=number,
    )


def test_a_frame_is_shown_and_its_header_is_whole(tmp_path: Path) -> None:
    images, files = images_of(*make_ct_series(tmp_path, slices=2, rows=24, columns=20))
    frame = frame_of(files[1])
    assert images.shown(frame).shape == (24, 20, 3)
    header = images.header(frame)
    assert header.SOPInstanceUID == files[1].sop_instance_uid
    assert header.RescaleIntercept == -1024
    assert "PixelData" not in header


def test_how_a_frame_is_shown_stands_at_the_top_of_its_header(tmp_path: Path) -> None:
    def windows(dataset: Dataset, _: int) -> None:
        for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence, 1):
            window = Dataset()
            window.WindowCenter, window.WindowWidth = 10 * number, 400
            groups.FrameVOILUTSequence = [window]

    images, files = images_of(
        make_enhanced_ct(tmp_path / "e.dcm", slices=3, rows=24, columns=20, modify=windows)
    )
    for number in (1, 3):
        header = images.header(frame_of(files[0], number))
        assert header.WindowCenter == 10 * number
        assert header.RescaleIntercept == -1024


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    images, files = images_of(*make_ct_series(tmp_path, slices=1, rows=24, columns=20))
    files[0].path.write_bytes(b"not DICOM")
    for ask in (images.header, images.shown):
        with pytest.raises(PictureError, match="not a readable DICOM file"):
            ask(frame_of(files[0]))
    elsewhere = SourceFrame(sop_class_uid="1.2", sop_instance_uid="1.9", series_instance_uid="1.3")
    for ask in (images.header, images.shown):
        with pytest.raises(PictureError, match="not among those"):
            ask(elsewhere)


def test_a_frame_that_is_not_there_has_no_header(tmp_path: Path) -> None:
    images, files = images_of(make_enhanced_ct(tmp_path / "e.dcm", slices=3, rows=24, columns=20))
    with pytest.raises(PictureError, match="no readable header"):
        images.header(frame_of(files[0], 9))


def test_where_no_images_were_handed_in_each_is_refused() -> None:
    frame = SourceFrame(sop_class_uid="1.2", sop_instance_uid="1.9", series_instance_uid="1.3")
    for ask in (NoSourceImages().header, NoSourceImages().shown):
        with pytest.raises(PictureError, match="not at hand"):
            ask(frame)
