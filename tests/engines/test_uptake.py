from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from engines.refusals import SeriesRefusedError
from engines.series import in_uptake_values, read_volume
from engines.uptake import suv_factor
from tests.factories import instance_files


def pet(**changes: object) -> Dataset:
    """Return the header of an image of 70 kg, 350 MBq, an hour after the injection."""
    image = Dataset()
    image.Units, image.CorrectedImage, image.DecayCorrection = "BQML", ["DECY", "ATTN"], "START"
    image.PatientWeight = 70
    image.SeriesDate, image.SeriesTime = "20240301", "090000"
    item = Dataset()
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = 350e6, 3600
    item.RadiopharmaceuticalStartTime = "080000"
    image.RadiopharmaceuticalInformationSequence = [item]
    for keyword, value in changes.items():
        setattr(item if keyword.startswith("Radio") else image, keyword, value)
    return image


AT_INJECTION = 70_000 / 350e6


def test_a_dose_decays_until_the_series_begins() -> None:
    """PIX-07: START, and ADMIN without decay."""
    assert suv_factor([pet()]) == pytest.approx(2 * AT_INJECTION)
    assert suv_factor([pet(DecayCorrection="ADMIN")]) == pytest.approx(AT_INJECTION)


def test_an_acquisition_before_the_series_is_where_decay_is_reckoned_to() -> None:
    """Series that were reconstructed again bear the time of that."""
    late = {"SeriesTime": "170000", "AcquisitionDate": "20240301"}
    images = [pet(**late, AcquisitionTime=time) for time in ("090500", "090000.50", "091000")]
    assert suv_factor(images) == pytest.approx(2 * AT_INJECTION)


def test_an_injection_after_the_series_was_on_the_day_before() -> None:
    """PIX-07: over midnight."""
    found = suv_factor([pet(SeriesTime="001000", RadiopharmaceuticalStartTime="231000")])
    assert found == pytest.approx(2 * AT_INJECTION)
    whole = pet(RadiopharmaceuticalStartDateTime="20240301070000.0")
    assert suv_factor([whole]) == pytest.approx(4 * AT_INJECTION)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Units": "CNTS"}, "Units are CNTS, not BQML"),
        ({"CorrectedImage": ["DECY"]}, "not corrected for ATTN"),
        ({"CorrectedImage": "ATTN"}, "not corrected for DECY"),
        ({"PatientWeight": None}, "the patient's weight is not known"),
        ({"PatientWeight": 0}, "the patient's weight is 0"),
        ({"RadionuclideTotalDose": None}, "the injected dose is not known"),
        ({"RadiopharmaceuticalInformationSequence": None}, "the injected dose is not known"),
        ({"RadionuclideHalfLife": None}, "the half-life is not known"),
        ({"RadiopharmaceuticalStartTime": None}, "the time of injection is not known"),
        ({"SeriesTime": None}, "the time of the series is not known"),
        ({"DecayCorrection": "NONE"}, "neither START nor ADMIN"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, object], why: str) -> None:
    """PIX-07: refused, never guessed."""
    image = pet()
    for keyword, value in changes.items():
        dose = "Dose" in keyword or "Half" in keyword or "Start" in keyword
        place = image.RadiopharmaceuticalInformationSequence[0] if dose else image
        setattr(place, keyword, value)
    with pytest.raises(SeriesRefusedError, match=why) as error:
        suv_factor([image])
    assert error.value.reason.value == "NOT_CALIBRATED"


def test_uptake_of_a_real_series_is_as_its_readme_says(shared_data: Callable[[str], Path]) -> None:
    """The highest value of the field of view is 51 g/ml."""
    files = sorted(shared_data("petct_acrin_042/pet_ac").glob("*.dcm"))
    factor = suv_factor([dcmread(path, stop_before_pixels=True) for path in files])
    volume = in_uptake_values(read_volume(instance_files(files)), factor)
    assert volume.unit == "g/ml{SUVbw}"
    assert float(volume.voxels.max()) == pytest.approx(51, abs=0.5)
