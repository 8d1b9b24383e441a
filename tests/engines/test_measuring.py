from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.images import VoxelArray
from engines.measuring import tally

SHAPE = (3, 6, 7)


@pytest.mark.parametrize("reach", [5, 3000, 32767], ids=["few", "12 bits", "16 bits"])
@pytest.mark.parametrize("most", [4, 255], ids=["four labels", "all labels"])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
@given(data=st.data())
def test_a_tally_is_what_masks_would_tell(
    kind: type[np.int16 | np.float32], most: int, reach: int, data: st.DataObject
) -> None:
    labels = data.draw(arrays(np.uint8, SHAPE, elements=st.integers(0, most)))
    whole = data.draw(arrays(np.int16, SHAPE, elements=st.integers(-reach - 1, reach)))
    voxels: VoxelArray = whole if kind is np.int16 else whole.astype(np.float32) / np.float32(7)
    found = tally(voxels, labels)
    assert len(found) == 256
    for value in {*range(1, 6), most}:
        mask = labels == value
        assert found[value].voxels == mask.sum()
        assert np.array_equal(found[value].by_slice, mask.sum(axis=(1, 2)))
        mean = float(np.mean(voxels, dtype=np.float64, where=mask)) if mask.any() else 0.0
        assert found[value].mean == pytest.approx(mean, rel=1e-12, abs=1e-9)


def test_sums_of_large_volumes_are_exact() -> None:
    voxels = np.full((2, 300, 300), 32767, np.int16)
    labels = np.full(voxels.shape, 9, np.uint8)
    assert tally(voxels, labels)[9].total == 2 * 300 * 300 * 32767
    assert tally(voxels, labels)[0].mean == 0.0
