"""A short soak against a real node, and that growth is seen where there is some."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.end_to_end.made_images import SOP_CLASSES, Kind, Prototype, Study
from tests.end_to_end.sampling import Tolerance, growth, percentiles
from tests.end_to_end.soak import growths
from tests.places import ROOT

FIVE_PER_CENT = Tolerance(share=0.05, least=5)


def test_a_short_peak_goes_through_without_loss(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--minutes", "0.08", "--compress", "6", "--scale", "0.125", "--json", str(figures)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.soak", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())
    assert found["studies"] >= 4
    assert found["instances"] > 200
    assert found["latencies"]["routed"]["p50"] >= 0
    assert "too short to say whether anything grows" in run.stdout


def noisy(slope: float, count: int = 300) -> list[float]:
    chance = random.Random(1)  # noqa: S311 - noise
    return [200 + slope * second + chance.gauss(0, 8) for second in range(count)]


@pytest.mark.parametrize(("slope", "grows"), [(0.0, False), (0.01, False), (0.2, True)])
def test_growth_beyond_the_tolerance_is_seen_through_noise(slope: float, grows: bool) -> None:
    found = growth(noisy(slope), 300, FIVE_PER_CENT)
    assert found.too_much is grows
    assert found.slope == pytest.approx(slope * 60, abs=1.0)


def test_a_few_high_samples_are_no_growth() -> None:
    values = [10.0] * 280 + [500.0] * 20
    assert not growth(values, 300, FIVE_PER_CENT).too_much


def test_nothing_is_said_of_growth_in_a_short_run() -> None:
    samples = {"threads": [float(second) for second in range(20)]}
    assert growths(samples, 20) == {}
    assert growths(samples, 200)["threads"].too_much


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentiles([3.0, 1.0, 2.0]) == {"p50": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0}


@pytest.mark.parametrize("sop_class_uid", SOP_CLASSES)
def test_a_made_image_is_a_data_set_with_names_of_its_own(sop_class_uid: str) -> None:
    kind = Kind(modality="OT", sop_class_uid=sop_class_uid, rows=8, columns=8, frames=3)
    study = Study(Prototype(kind), random.Random(2))  # noqa: S311 - pixels
    first, second = study.image(), study.image()
    study.next_series()
    third = study.image()
    read = [dcmread(BytesIO(item.data_set), force=True) for item in (first, second, third)]
    assert [str(item.SOPInstanceUID) for item in read] == [
        item.sop_instance_uid for item in (first, second, third)
    ]
    assert len({item.SOPInstanceUID for item in read}) == 3
    assert len({item.SeriesInstanceUID for item in read}) == 2
    assert {item.StudyInstanceUID for item in read} == {study.study_instance_uid}
    assert [item.InstanceNumber for item in read] == [1, 2, 1]
    assert {len(item.PixelData) for item in read} == {8 * 8 * 2 * 3}
