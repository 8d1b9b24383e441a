from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from node.demo_pictures import overlay
from node.results.segmentation import SegmentationWriter
from tests.node.results.building import analysis, context, series


@pytest.mark.parametrize("segments", [1, 2])
def test_segments_are_drawn_over_their_images_one_or_several(tmp_path: Path, segments: int) -> None:
    headers = series(tmp_path / "ct")
    found = analysis(headers)
    outcome = replace(found, findings=found.findings[:segments])
    (dataset,) = SegmentationWriter().write(context(headers, outcome))
    path = tmp_path / "seg.dcm"
    dataset.save_as(path, enforce_file_format=True)
    files = [*(tmp_path / "ct").glob("*.dcm")]
    sources = {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): file for file in files}
    overlay(path, sources, tmp_path / "picture.png")
    picture = np.asarray(Image.open(tmp_path / "picture.png")).astype(int)
    coloured = np.ptp(picture, axis=2) > 20
    assert coloured.any()
    assert not coloured.all()
