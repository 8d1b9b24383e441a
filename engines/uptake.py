"""From activity to standardized uptake value by body weight (SUVbw), or why that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset

from engines.refusals import Reason, SeriesRefusedError

CORRECTIONS: Final = ("ATTN", "DECY")
DAY: Final = timedelta(days=1)


def suv_factor(images: Sequence[Dataset]) -> float:
    """Return by what Bq/ml have to be multiplied to be g/ml, of the headers of a PET series.

    Decay is reckoned from the injection to the start of the series, or to the earliest acquisition
    where that comes first; not at all where values are corrected to the injection itself.

    Raises:
        SeriesRefusedError: the header does not give what is needed.
    """
    first = images[0]
    _check_corrected(images)
    weight = _number(first, "PatientWeight", "the patient's weight")
    dose_item = (first.get("RadiopharmaceuticalInformationSequence") or [Dataset()])[0]
    dose = _number(dose_item, "RadionuclideTotalDose", "the injected dose")
    correction = str(first.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return weight * 1000 / dose
    if correction != "START":
        raise _refused("Decay Correction is neither START nor ADMIN")
    half_life = _number(dose_item, "RadionuclideHalfLife", "the half-life")
    seconds = (_start(images) - _injected(dose_item, first)).total_seconds()
    return weight * 1000 / (dose * 2 ** (-seconds / half_life))


def _check_corrected(images: Sequence[Dataset]) -> None:
    units = {str(image.get("Units") or "none") for image in images}
    if units != {"BQML"}:
        raise _refused(f"Units are {', '.join(sorted(units))[:64]}, not BQML")
    for image in images:
        said = image.get("CorrectedImage") or ()
        done = {said} if isinstance(said, str) else {str(item) for item in said}
        missing = [name for name in CORRECTIONS if name not in done]
        if missing:
            raise _refused(f"images are not corrected for {', '.join(missing)}")


def _start(images: Sequence[Dataset]) -> datetime:
    starts = [_moment(images[0], "SeriesDate", "SeriesTime", "the time of the series")]
    dated = [item for item in images if item.get("AcquisitionDate") and item.get("AcquisitionTime")]
    acquired = [_moment(i, "AcquisitionDate", "AcquisitionTime", "an acquisition") for i in dated]
    return min([*starts, *acquired])


def _injected(item: Dataset, image: Dataset) -> datetime:
    """Return when the dose was given; a time alone is on the day of the series, or before it."""
    whole = str(item.get("RadiopharmaceuticalStartDateTime") or "")
    if whole:
        return _parsed(whole[:14], "the time of injection")
    time = str(item.get("RadiopharmaceuticalStartTime") or "")
    day = str(image.get("SeriesDate") or "")
    found = _parsed(day + time[:6], "the time of injection")
    start = _moment(image, "SeriesDate", "SeriesTime", "the time of the series")
    return found - DAY if found > start else found


def _moment(image: Dataset, date: str, time: str, what: str) -> datetime:
    return _parsed(f"{image.get(date) or ''}{str(image.get(time) or '')[:6]}", what)


def _parsed(text: str, what: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007 - all are of one clock
    except ValueError as error:
        raise _refused(f"{what} is not known") from error


def _number(item: Dataset, keyword: str, what: str) -> float:
    value = item.get(keyword)
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise _refused(f"{what} is not known") from error
    if not 0 < found < float("inf"):
        raise _refused(f"{what} is {found:g}")
    return found


def _refused(why: str) -> SeriesRefusedError:
    return SeriesRefusedError(Reason.WRONG_UNIT, f"no uptake value can be had: {why}")
