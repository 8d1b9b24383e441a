from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom

from tests.node.results.building import (
    analysis,
    context,
    frames_of,
    grid_of,
    masks,
    save_all,
    segment,
    series,
)
from tests.node.results.validators import dciodvfy


def test_slices_of_two_phases_at_one_place_keep_their_own_sources(tmp_path: Path) -> None:
    """As of a beating heart: each place bears an image of either phase."""
    first = series(tmp_path / "source")
    second = tuple(pydicom.dcmread(tmp_path / "source" / f"{i:04d}.dcm") for i in range(len(first)))
    for header in second:
        header.SOPInstanceUID = f"{header.SOPInstanceUID}.2"
    both = tuple(header for pair in zip(first, second, strict=True) for header in pair)
    one, other = masks(grid_of(first).shape)
    planes = np.zeros((2, len(both), *one.shape[1:]), np.bool_)
    planes[0, ::2], planes[1, 1::2] = one, other
    outcome = replace(
        analysis(first),
        grid=replace(
            grid_of(first),
            shape=planes.shape[1:],
            positions=tuple(p for p in grid_of(first).positions for _ in range(2)),
            regular=False,
        ),
        sources=frames_of(both),
        findings=(segment("one", planes[0]), segment("two", planes[1])),
    )
    paths = save_all(context(both, outcome), tmp_path / "out")
    written = pydicom.dcmread(paths["segmentation"])
    for groups in written.PerFrameFunctionalGroupsSequence:
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        late = str(source.ReferencedSOPInstanceUID).endswith(".2")
        assert late == (number == 2)
    indices = [
        tuple(groups.FrameContentSequence[0].DimensionIndexValues)
        for groups in written.PerFrameFunctionalGroupsSequence
    ]
    assert len(set(indices)) == len(indices)
    assert max(index for _, index in indices) <= len(first), "a place is counted once"
    assert not dciodvfy(paths["segmentation"])
