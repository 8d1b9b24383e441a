from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.base import Array, Engine
from engines.package import EnginePackage, load_package
from engines.reference.ct_body_composition.build_model import build, build_model

FILES = ("engine.toml", "model.onnx", "golden/inputs.npz", "golden/expected.npz")


def labels_of(engine: Engine, image: Array, valid: Array | None = None) -> Array:
    """Run the model on one slice [row, column]."""
    known = np.ones_like(image) if valid is None else valid
    inputs = {
        "image": image.astype(np.float32)[None, None],
        "valid": known.astype(np.float32)[None, None],
    }
    labels: Array = engine.session.run(inputs)["labels"][0, 0]
    return labels


def test_building_again_gives_the_same_bytes(package: EnginePackage, tmp_path: Path) -> None:
    build(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (package.folder / name).read_bytes(), name


def test_the_committed_model_is_the_one_the_script_makes(package: EnginePackage) -> None:
    digest = hashlib.sha256(build_model()).hexdigest()
    assert package.manifest.files["model.onnx"] == digest


@pytest.mark.parametrize(
    ("hu", "label"),
    [
        (-1000, 1), (-191, 1), (-190, 2), (-100, 2), (-30, 2), (-29, 3), (0, 3), (150, 3),
        (151, 4), (3000, 4),
    ],
)  # fmt: skip
def test_the_ranges_are_those_that_the_parameters_state(
    engine: Engine, hu: int, label: int
) -> None:
    assert (labels_of(engine, np.full((8, 9), hu)) == label).all()


def test_padding_gets_no_label_and_does_not_reach_its_neighbours(engine: Engine) -> None:
    image = np.full((8, 8), 50.0)
    image[:, :4] = -3000
    valid = np.ones((8, 8))
    valid[:, :4] = 0
    labels = labels_of(engine, image, valid)
    assert (labels[:, :4] == 0).all()
    assert (labels[:, 4:] == 3).all()


def test_single_noisy_voxels_are_smoothed_away(engine: Engine) -> None:
    image = np.full((9, 9), 40.0)
    image[4, 4] = 350
    assert (labels_of(engine, image) == 3).all()


def test_the_wall_between_air_and_soft_tissue_is_not_fat(engine: Engine) -> None:
    image = np.full((12, 12), 40.0)
    image[:, :5] = -850
    image[:, 5] = -300
    assert set(np.unique(labels_of(engine, image))) == {1, 3}


def test_the_golden_case_is_right_and_not_only_stable(package: EnginePackage) -> None:
    with np.load(io.BytesIO(package.read_file("golden/inputs.npz")), allow_pickle=False) as arrays:
        voxels = arrays["voxels"]
    with np.load(
        io.BytesIO(package.read_file("golden/expected.npz")), allow_pickle=False
    ) as arrays:
        labels, means = arrays["labels"], arrays["means"]
    rows, columns = np.mgrid[0:64, 0:80]
    outside = ((columns - 39.5) / 31.5) ** 2 + ((rows - 28) / 21.5) ** 2 > 1
    assert not labels[:, outside].any(), "table and room air must bear no label"
    inside = ((columns - 39.5) / 28.5) ** 2 + ((rows - 28) / 18.5) ** 2 < 1
    assert labels[:, inside].all(), "no hole may be left in the body"
    for value, (low, high) in {1: (-860, -800), 2: (-120, -70), 3: (20, 70), 4: (350, 440)}.items():
        core = (voxels > low) & (voxels < high) & (labels > 0)
        assert np.mean(labels[core] == value) > 0.8
    assert means == pytest.approx([-840, -90, 40, 420], rel=0.2)


def test_the_package_folder_holds_nothing_else(package: EnginePackage, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(package.folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    names = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert names == sorted([*FILES, "README.md", "__init__.py", "build_model.py"])
    assert load_package(copy).digest == package.digest
