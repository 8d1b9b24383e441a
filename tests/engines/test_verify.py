from __future__ import annotations

import hashlib
import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.base import Array
from engines.package import EnginePackage, find_packages, load_package, shipped_folder
from engines.verify import difference, verify_package


def spoiled(tmp_path: Path, name: str, data: bytes) -> EnginePackage:
    """Return a copy of the shipped package with one other file, whose digest is made to fit."""
    folder = tmp_path / "copy"
    shutil.copytree(
        shipped_folder() / "ct_body_composition",
        folder,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    old = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / name).write_bytes(data)
    manifest = folder / "engine.toml"
    manifest.write_text(manifest.read_text().replace(old, hashlib.sha256(data).hexdigest()))
    return load_package(folder)


def npz(**arrays: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("folder", find_packages([shipped_folder()]), ids=lambda path: path.name)
def test_every_engine_that_ships_gives_the_known_answer(folder: Path) -> None:
    verdict = verify_package(load_package(folder), threads=2)
    assert verdict.passed, verdict.reason
    assert verdict.max_difference == 0.0
    assert verdict.seconds > 0


def test_another_answer_does_not_pass(tmp_path: Path, package: EnginePackage) -> None:
    with np.load(io.BytesIO(package.read_file("golden/expected.npz"))) as arrays:
        expected = {name: arrays[name].copy() for name in arrays.files}
    expected["labels"][0] = 0
    verdict = verify_package(spoiled(tmp_path, "golden/expected.npz", npz(**expected)))
    assert not verdict.passed
    assert verdict.max_difference > 0.01
    assert verdict.reason.startswith("labels differs by")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("model.onnx", b"not a model", "ModelInvalidError: "),
        ("golden/inputs.npz", b"not an archive", "PackageError: golden/inputs.npz: is no .npz"),
        ("golden/expected.npz", npz(other=np.zeros(3)), "PackageError: golden/expected.npz: "),
        (
            "golden/expected.npz",
            npz(labels=np.array([{"a": 1}], dtype=object)),
            "PackageError: golden/expected.npz: is no .npz of plain arrays",
        ),
    ],
)
def test_a_golden_case_that_cannot_run_is_a_verdict_with_its_reason(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    verdict = verify_package(spoiled(tmp_path, name, data))
    assert not verdict.passed
    assert math.isnan(verdict.max_difference)
    assert verdict.reason.startswith(reason)


@pytest.mark.parametrize(
    ("found", "expected", "result"),
    [
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), 0.25),
        (np.array([1.0, 2.0]), np.array([1.0, 4.0]), 0.5),
        (np.array([0.5]), np.array([0.0]), 0.5),
        (np.array([1]), np.array([1, 2]), math.inf),
        (np.array([math.nan]), np.array([1.0]), math.inf),
        (np.array([], dtype=np.float64), np.array([], dtype=np.float64), 0.0),
    ],
)
def test_differences_are_shares_or_relative(found: Array, expected: Array, result: float) -> None:
    assert difference(found, expected) == result
