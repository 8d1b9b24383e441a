from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.package import (
    EnginePackage,
    PackageError,
    find_packages,
    load_package,
    shipped_folder,
)

Edit = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped package that a test may spoil."""
    copy = tmp_path / "copy"
    shutil.copytree(
        shipped_folder() / "ct_body_composition", copy, ignore=shutil.ignore_patterns("__pycache__")
    )
    return copy


def replace(folder: Path, old: str, new: str) -> None:
    manifest = folder / "engine.toml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))


def error(folder: Path) -> str:
    with pytest.raises(PackageError) as caught:
        load_package(folder)
    return str(caught.value)


def test_the_shipped_package_says_what_it_is(package: EnginePackage) -> None:
    assert package.name == "ct-body-composition"
    assert package.task == "segmentation"
    assert package.runtime == "onnxruntime"
    assert package.clinical_use.startswith("Not for clinical use")
    assert package.soft_deadline_seconds < package.hard_deadline_seconds
    assert dict(package.parameters)["Fat"] == "-190 to -30 HU, not beside air"


def test_packages_are_found_by_their_manifest(folder: Path, tmp_path: Path) -> None:
    assert find_packages([tmp_path, folder]) == [folder.resolve()]
    assert [path.name for path in find_packages([shipped_folder()])] == ["ct_body_composition"]
    with pytest.raises(PackageError, match="no such folder"):
        find_packages([tmp_path / "elsewhere"])


def test_a_copy_has_the_same_digest_and_compiled_scripts_do_not_count(
    folder: Path, package: EnginePackage
) -> None:
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/build_model.cpython-311.pyc").write_bytes(b"code")
    assert load_package(folder).digest == package.digest


@pytest.mark.parametrize("name", ["engine.toml", "build_model.py", "README.md"])
def test_any_changed_file_changes_the_digest(
    folder: Path, package: EnginePackage, name: str
) -> None:
    with (folder / name).open("a") as stream:
        stream.write("\n")
    assert load_package(folder).digest != package.digest


@pytest.mark.parametrize("name", ["model.onnx", "golden/inputs.npz", "golden/expected.npz"])
def test_a_changed_byte_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert error(folder).startswith(f"{name}: its SHA-256 is ")


def test_a_byte_changed_after_loading_is_refused_when_the_file_is_used(folder: Path) -> None:
    package = load_package(folder)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(PackageError, match="changed since the package was loaded"):
        package.read_file("model.onnx")
    with pytest.raises(PackageError, match="gives no digest"):
        package.read_file("engine.toml")
    (folder / "model.onnx").unlink()
    with pytest.raises(PackageError, match="No such file"):
        package.read_file("model.onnx")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "1.0.0"', 'version = "one"', "engine.toml: version: "),
        ('title = "CT', 'colour = 3\ntitle = "CT', "engine.toml: colour: Extra inputs"),
        ("min_slices = 1", "min_slices = 0", "engine.toml: suitability.min_slices: "),
        ("min_slices = 1", 'min_slices = "1"', "engine.toml: suitability.min_slices: "),
        ("min_slices = 1", "minimum_slices = 1", "engine.toml: suitability.minimum_slices: "),
        ("value = 2", "value = 900", "engine.toml: segmentation.segments.1.value: "),
        ("value = 2", "value = 1", "engine.toml: segmentation: Value error, two segments share"),
        ("lowest = -1500.0", "lowest = nan", "engine.toml: segmentation.lowest: "),
        (
            'otherwise = "soft-tissue"',
            'otherwise = "liver"',
            "engine.toml: segmentation: Value error, no segment has the key 'liver'",
        ),
        (
            "hard_deadline_seconds = 600.0",
            "hard_deadline_seconds = 1.0",
            "engine.toml: resources: ",
        ),
        ('task = "segmentation"', 'task = "juggling"', "task: 'juggling' is not one of"),
        ('runtime = "onnxruntime"', 'runtime = "abacus"', "runtime: 'abacus' is not one of"),
        ("[segmentation.body]", "[segmentation.bodies]", "engine.toml: segmentation.bodies: "),
        ('file = "model.onnx"', 'file = "../model.onnx"', "../model.onnx is used, but [files]"),
        ("[files]", '[files]\n"../secret.onnx" = "' + "0" * 64 + '"', "leaves the folder"),
        ("[files]", '[files]\n"/etc/passwd" = "' + "0" * 64 + '"', "leaves the folder"),
        ("[files]", '[files]\n"gone.onnx" = "' + "0" * 64 + '"', "there is no such file"),
        ('name = "ct-body', 'name = "CT body', "engine.toml: name: "),
        ('name = "ct-body', "name = ct-body", "engine.toml: Invalid value"),
    ],
)
def test_a_wrong_manifest_is_refused_and_the_key_named(
    folder: Path, old: str, new: str, message: str
) -> None:
    replace(folder, old, new)
    assert message in error(folder)


def _link_model(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "model.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "model.onnx")


def _link_folder(folder: Path) -> None:
    (folder / "golden").rename(folder.parent / "golden")
    (folder / "golden").symlink_to(folder.parent / "golden")


def _pickle(folder: Path) -> None:
    (folder / "weights.pt").write_bytes(pickle.dumps({"weights": [1.0]}))


def _unlisted(folder: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "second.onnx")


def _empty(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "model.onnx").write_bytes(b"")
    replace(folder, digest, hashlib.sha256(b"").hexdigest())


def _without_manifest(folder: Path) -> None:
    (folder / "engine.toml").unlink()


def _without_task_table(folder: Path) -> None:
    text = (folder / "engine.toml").read_text()
    head, _, _ = text.partition("[segmentation]")
    _, _, files = text.partition("[files]")
    (folder / "engine.toml").write_text(head + "[files]" + files)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_link_model, "model.onnx: is a symbolic link"),
        (_link_folder, "golden: is a symbolic link"),
        (_pickle, "weights.pt: files of kind '.pt' do not belong"),
        (_unlisted, "second.onnx: engine.toml gives no digest"),
        (_empty, "model.onnx: is empty"),
        (_without_manifest, "engine.toml: not in"),
        (_without_task_table, "engine.toml: segmentation: the table of the task is missing"),
    ],
)
def test_files_that_do_not_belong_are_refused(folder: Path, spoil: Edit, message: str) -> None:
    spoil(folder)
    assert message in error(folder)
