"""Where the voxels of a series lie, in any direction, and attributes that say something else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from engines.images import Volume
from engines.refusals import Reason, SeriesRefusedError
from engines.series import read_volume
from tests.factories import Modify, instance_files, make_ct_series

SPACING = (4.0, 2.0, 3.0)


def read(folder: Path, modify: Modify) -> Volume:
    return read_volume(
        instance_files(
            make_ct_series(folder, slices=6, rows=16, columns=20, spacing=SPACING, modify=modify)
        )
    )


@pytest.mark.parametrize("said", ["0.5", "-2", "40"])
def test_slices_are_as_far_apart_as_their_positions_whatever_the_header_says(
    tmp_path: Path, said: str
) -> None:
    """GEO-07: some write a gap, or a negative number."""

    def mislead(dataset: Dataset, _index: int) -> None:
        dataset.SpacingBetweenSlices = said

    assert read(tmp_path, mislead).grid.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize("keyword", ["ImagerPixelSpacing", "NominalScannedPixelSpacing"])
def test_a_spacing_that_is_not_of_the_patient_is_none(tmp_path: Path, keyword: str) -> None:
    """GEO-12: at the detector, or of the scanned film; nothing is measured in mm by it."""

    def at_the_detector(dataset: Dataset, _index: int) -> None:
        setattr(dataset, keyword, dataset.PixelSpacing)
        del dataset.PixelSpacing

    with pytest.raises(SeriesRefusedError, match="Pixel Spacing") as caught:
        read(tmp_path, at_the_detector)
    assert caught.value.reason is Reason.MISSING_GEOMETRY


def test_a_volume_whose_values_a_table_would_change_is_refused(tmp_path: Path) -> None:
    """PIX-02: a Modality LUT in the place of slope and intercept."""

    def with_table(dataset: Dataset, _index: int) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 16])
        table.ModalityLUTType = "HU"
        table.add_new("LUTData", "OW", bytes(2 * 4096))
        dataset.ModalityLUTSequence = [table]

    with pytest.raises(SeriesRefusedError, match="Modality LUT") as caught:
        read(tmp_path, with_table)
    assert caught.value.reason is Reason.INVALID_RESCALE


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    angle=st.floats(-1.5, 1.5),
    between=st.floats(0.5, 9.0),
    pixel=st.floats(0.3, 3.0),
    seed=st.integers(0, 1000),
)
def test_files_of_any_orientation_and_spacing_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, angle: float, between: float, pixel: float, seed: int
) -> None:
    orientation = (np.cos(angle), np.sin(angle), 0.0, 0.0, 0.0, -1.0)
    files = instance_files(
        make_ct_series(
            tmp_path_factory.mktemp("series"),
            slices=4,
            rows=6,
            columns=5,
            orientation=orientation,
            spacing=(between, pixel, pixel),
            seed=seed,
        )
    )
    shuffled = files.copy()
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a test order, no secret
    volume = read_volume(shuffled)
    assert [s.sop_instance_uid for s in volume.sources] == [f.sop_instance_uid for f in files]
    assert volume.grid.spacing[0] == pytest.approx(between, rel=1e-5)
