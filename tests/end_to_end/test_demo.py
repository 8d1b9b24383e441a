"""The demo as a newcomer runs it: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from node import demo_data
from node.demo_data import demo_studies, folder_study
from node.demo_pictures import cielab_to_srgb
from tests.end_to_end.packages import copy_package
from tests.factories import make_ct_series

ROOT = Path(__file__).parents[2]
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node", "demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=180,
    )


def test_folder_is_sent_through_and_told_as_json_with_pictures(tmp_path: Path) -> None:
    make_ct_series(tmp_path / "in", slices=6, rows=64, columns=64)
    done = demo("--input", tmp_path / "in", "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report) == {"studies", "jobs", "results", "deliveries", "seconds"}
    assert [study["state"] for study in report["studies"]] == ["routed"]
    assert [job["state"] for job in report["jobs"]] == ["succeeded"]
    assert {delivery["state"] for delivery in report["deliveries"]} == {"sent"}
    assert SEGMENTATION in {result["sop_class_uid"] for result in report["results"]}
    assert all(dcmread(result["path"]).SOPInstanceUID for result in report["results"])
    (picture,) = (tmp_path / "out").glob("*.png")
    assert np.asarray(Image.open(picture)).std() > 10


def test_an_engine_of_ones_own_is_tried_on_a_folder_with_every_picture(tmp_path: Path) -> None:
    make_ct_series(tmp_path / "in", slices=6, rows=64, columns=64)
    package = copy_package(tmp_path / "engines" / "mine", name="mine")
    output = tmp_path / "out"
    done = demo("--input", tmp_path / "in", "--engine", package, "--output", output, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert [(job["engine"], job["state"]) for job in report["jobs"]] == [("mine", "succeeded")]
    drawn = sorted(path.name for path in output.glob("study-1-secondary_capture-*.png"))
    captures = sorted(path.stem for path in output.glob("study-1-secondary_capture-*.dcm"))
    assert len(drawn) == len(captures) > 1
    assert all(np.asarray(Image.open(output / name)).ndim == 3 for name in drawn)


def test_folder_without_dicom_ends_with_status_2_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    done = demo("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "holds no DICOM file" in done.stderr


def test_study_that_cannot_be_taken_makes_the_demo_fail(tmp_path: Path) -> None:
    (file,) = make_ct_series(tmp_path / "in", slices=1, rows=64, columns=64)
    dataset = dcmread(file)
    del dataset.SeriesInstanceUID
    dataset.save_as(file)
    done = demo("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "refused" in done.stdout


@pytest.mark.filterwarnings("ignore")
def test_demo_has_genuine_data_and_a_phantom_that_says_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_data, "SHARED", tmp_path / "nowhere")
    studies = {study.name: study for study in demo_studies(tmp_path)}
    assert studies["head-ct"].genuine
    assert len(studies["head-ct"].files) == 108
    phantom = studies["phantom-chest"]
    assert not phantom.genuine
    header = dcmread(phantom.files[0], stop_before_pixels=True)
    assert "PHANTOM" in str(header.PatientName)
    assert "No patient" in header.ImageComments
    faults = subprocess.run(
        ["dciodvfy", "-new", str(phantom.files[0])], capture_output=True, text=True, check=False
    ).stderr
    assert [line for line in faults.splitlines() if line.startswith("Error")] == []


def test_folder_is_split_into_its_studies(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_ct_series(tmp_path / str(seed), slices=2, rows=16, columns=16, seed=seed)
    studies = folder_study(tmp_path)
    assert [len(study.files) for study in studies] == [2, 2]
    assert len({study.study_instance_uid for study in studies}) == 2


@pytest.mark.parametrize(
    ("encoded", "rgb"),
    [
        ([65535, 32896, 32896], (255, 255, 255)),
        ([0, 32896, 32896], (0, 0, 0)),
        ([34897, 53480, 50171], (255, 0, 0)),
    ],
)
def test_recommended_colour_is_turned_into_what_a_screen_shows(
    encoded: list[int], rgb: tuple[int, int, int]
) -> None:
    assert np.abs(np.subtract(cielab_to_srgb(encoded), rgb)).max() <= 2
