from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from engines.findings import Refusal
from engines.manifest import SuitabilityTable
from engines.refusals import SCHEME, Reason
from engines.series import StackedSeries, read_series, stack_series
from engines.suitability import unfit_grid, unfit_series
from tests.factories import CORONAL, CtOptions, instance_files, make_ct_series

CT = "1.2.840.10008.5.1.4.1.1.2"
BYTE_LIMIT = 1 << 28


def wanted(**changes: object) -> SuitabilityTable:
    usual: Mapping[str, object] = {
        "modalities": ("CT",),
        "sop_classes": (CT,),
        "unit": "HU",
        "plane": "axial",
        "max_slices": 100,
        "max_slice_distance": 10.0,
        "max_pixel_size": 5.0,
    }
    return SuitabilityTable.model_validate({**usual, **changes})


def stacked(folder: Path, **options: Unpack[CtOptions]) -> StackedSeries:
    chosen: CtOptions = {"slices": 4, "rows": 32, "columns": 32, **options}
    files = instance_files(make_ct_series(folder, **chosen))
    return stack_series(read_series(files, byte_limit=BYTE_LIMIT))


def judge(series: StackedSeries, table: SuitabilityTable) -> Refusal | None:
    return unfit_series(series.series, table) or unfit_grid(series, table)


def test_a_fitting_series_is_not_refused(tmp_path: Path) -> None:
    assert judge(stacked(tmp_path), wanted()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modalities": ("MR",)}, Reason.WRONG_MODALITY),
        ({"sop_classes": ("1.2.3",)}, Reason.WRONG_SOP_CLASS),
        ({"image_types_excluded": ("AXIAL",)}, Reason.WRONG_IMAGE_TYPE),
        ({"body_parts": ("HEAD",)}, Reason.WRONG_BODY_PART),
        ({"body_parts_excluded": ("CHEST",)}, Reason.WRONG_BODY_PART),
        ({"plane": "coronal"}, Reason.WRONG_PLANE),
        ({"min_slices": 5}, Reason.TOO_FEW_SLICES),
        ({"max_slices": 3}, Reason.TOO_MANY_SLICES),
        ({"max_slice_distance": 4.9}, Reason.SLICES_TOO_FAR_APART),
        ({"max_pixel_size": 2.9}, Reason.PIXELS_TOO_LARGE),
        ({"min_matrix": 64}, Reason.MATRIX_TOO_SMALL),
    ],
)
def test_what_the_engine_does_not_read_is_refused_with_a_code(
    tmp_path: Path, changes: Mapping[str, object], reason: Reason
) -> None:
    series = stacked(tmp_path)
    refusal = judge(series, wanted(**changes))
    assert refusal is not None
    assert (refusal.reason.value, refusal.reason.scheme) == (reason.value, SCHEME)
    assert refusal.sources == series.series.sources


def test_lossy_images_are_refused_unless_the_engine_accepts_them(tmp_path: Path) -> None:
    """NET-04: engine by engine."""

    def lossy(dataset: Dataset, index: int) -> None:
        dataset.LossyImageCompression = "01" if index == 2 else "00"

    series = stacked(tmp_path, modify=lossy)
    refusal = judge(series, wanted())
    assert refusal is not None
    assert refusal.reason.value == Reason.LOSSY.value
    assert refusal.detail == "1 of 4 images are lossy compressed"
    assert judge(series, wanted(lossy="accept")) is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("RescaleType", "US"), ("RescaleIntercept", None)],
)
def test_images_that_are_not_in_hounsfield_units_are_refused(
    tmp_path: Path, keyword: str, value: str | None
) -> None:
    def change(dataset: Dataset, _index: int) -> None:
        setattr(dataset, keyword, value)

    series = stacked(tmp_path, modify=change)
    refusal = judge(series, wanted())
    assert refusal is not None
    assert refusal.reason.value == Reason.WRONG_UNIT.value
    assert judge(series, wanted(unit="")) is None


def test_an_absent_body_part_is_not_refused(tmp_path: Path) -> None:
    def drop(dataset: Dataset, _index: int) -> None:
        del dataset.BodyPartExamined

    assert judge(stacked(tmp_path, modify=drop), wanted(body_parts=("HEAD",))) is None


def test_coronal_slices_are_refused_by_an_axial_engine(tmp_path: Path) -> None:
    refusal = judge(stacked(tmp_path, orientation=CORONAL), wanted())
    assert refusal is not None
    assert refusal.detail == "slices lie 90 degrees off the axial plane; 15 are accepted"


def test_free_text_in_a_code_string_does_not_reach_the_detail(tmp_path: Path) -> None:
    def leak(dataset: Dataset, _index: int) -> None:
        element = DataElement("BodyPartExamined", "CS", "<b>\nMILLER", validation_mode=IGNORE)
        dataset["BodyPartExamined"] = element

    refusal = judge(stacked(tmp_path, modify=leak), wanted(body_parts=("HEAD",)))
    assert refusal is not None
    assert "<" not in refusal.detail
    assert "\n" not in refusal.detail


def test_every_reason_has_a_code_value_and_meaning_that_dicom_can_hold() -> None:
    from engines.refusals import MEANINGS, reason_code

    assert set(MEANINGS) == set(Reason)
    for reason in Reason:
        code = reason_code(reason)
        assert 1 <= len(code.value) <= 16
        assert 1 <= len(code.meaning) <= 64
    assert len({code.meaning for code in map(reason_code, Reason)}) == len(Reason)
