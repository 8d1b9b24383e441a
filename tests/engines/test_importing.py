from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto, helper
from typer.testing import CliRunner

from engines.errors import EngineError, ModelInvalidError
from engines.importing import import_model
from engines.package import PackageError, load_package, shipped_folder
from engines.schema import package_schema
from engines.verify import verify_package
from node.cli import app

ANSWERS = Path(__file__).parents[2] / "config" / "engines"
LUNG = ANSWERS / "lung_unet_ct" / "engine.toml"


def threshold_model(path: Path) -> Path:
    """Write a net that is no net: bright pixels are lungs."""
    shape: list[str | int | None] = ["n", 1, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["image"], ["prob"])],
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return threshold_model(tmp_path / "net.onnx")


def test_an_import_is_a_package_that_passes_its_golden_case(model: Path, tmp_path: Path) -> None:
    package = import_model(model, LUNG, tmp_path / "lungs")
    assert package.name == "lung-unet-ct"
    assert package.manifest.model.file == "lung_unet.onnx"
    verdict = verify_package(package)
    assert verdict.passed, verdict.reason
    assert verdict.max_difference == 0.0


def test_the_same_model_and_answers_make_the_same_bytes(model: Path, tmp_path: Path) -> None:
    first, second = (import_model(model, LUNG, tmp_path / name) for name in ("one", "two"))
    assert first.digest == second.digest


def test_the_golden_case_tells_another_model_even_where_both_find_nothing(
    model: Path, tmp_path: Path
) -> None:
    text = LUNG.read_text().replace("threshold = 0.5", "threshold = 2.0")
    answers = tmp_path / "answers.toml"
    answers.write_text(text)
    package = import_model(model, answers, tmp_path / "lungs")
    golden = np.load(package.folder / "golden" / "expected.npz")
    assert not golden["labels"].any()
    assert golden["scores"] > 0.1


def spoiled(text: str, path: Path) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('file = "lung_unet.onnx"', "", r"model\.file: is missing"),
        ('file = "lung_unet.onnx"', 'file = "../lung.onnx"', "leaves the folder"),
        ('file = "lung_unet.onnx"', 'file = "/lung.onnx"', "leaves the folder"),
        ('file = "lung_unet.onnx"', 'file = "lung.npz"', "not of the kind"),
        ("[parameters]", '[files]\n"x.onnx" = "00"\n[parameters]', "written by the import"),
        ("min_slices = 10", "min_slices = 0", r"suitability\.min_slices"),
        ('task = "segmentation"', 'task = "prophecy"', "'prophecy' is not one of"),
        ('input = "image"', 'input = "picture"', r"the model takes \['image'\]"),
        ('output = "prob"', 'output = "probability"', "no output 'probability'"),
        ("[model]", "[model", "answers.toml: "),
    ],
)
def test_answers_that_do_not_fit_are_refused_and_leave_nothing(
    old: str, new: str, message: str, model: Path, tmp_path: Path
) -> None:
    text = LUNG.read_text()
    assert old in text
    answers = spoiled(text.replace(old, new, 1), tmp_path / "answers.toml")
    with pytest.raises(EngineError, match=message):
        import_model(model, answers, tmp_path / "lungs")
    assert not (tmp_path / "lungs").exists()


def test_models_that_are_none_are_refused_and_leave_nothing(model: Path, tmp_path: Path) -> None:
    empty, cut, pickled = (tmp_path / name for name in ("empty.onnx", "cut.onnx", "weights.pt"))
    empty.touch()
    cut.write_bytes(model.read_bytes()[:40])
    pickled.write_bytes(b"\x80\x04.")
    for path, error, message in (
        (empty, PackageError, "is empty"),
        (tmp_path / "gone.onnx", PackageError, "no such file"),
        (cut, ModelInvalidError, "the model is no ONNX"),
        (pickled, PackageError, "never pickles"),
    ):
        with pytest.raises(error, match=message):
            import_model(path, LUNG, tmp_path / "lungs")
        assert not (tmp_path / "lungs").exists()


def test_a_folder_that_exists_is_left_alone(model: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="exists already"):
        import_model(model, LUNG, tmp_path)
    assert model.exists()


@pytest.mark.parametrize(
    "answers", sorted(ANSWERS.glob("*/engine.toml")), ids=lambda p: p.parent.name
)
def test_answers_that_ship_fit_the_schema(answers: Path) -> None:
    table = tomllib.loads(answers.read_text())
    table["files"] = {"model.onnx": "0" * 64}
    Draft202012Validator(package_schema()).validate(table)


def test_the_schema_refuses_what_the_node_refuses() -> None:
    table = tomllib.loads((shipped_folder() / "ct_body_composition" / "engine.toml").read_text())
    checker = Draft202012Validator(package_schema())
    assert checker.is_valid(table)
    for wrong in ({"task": "prophecy"}, {"colour": "red"}, {"version": "one"}):
        assert not checker.is_valid(table | wrong)


def test_the_command_line_imports_and_checks(model: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    target = tmp_path / "lungs"
    made = run(app, ["engines", "import", str(model), "--answers", str(LUNG), "--to", str(target)])
    assert made.exit_code == 0, made.output
    digest = load_package(target).digest
    assert digest in made.output.replace("\n", "")
    assert "golden case passed" in run(app, ["engines", "check", "--run", str(target)]).output
    again = run(app, ["engines", "import", str(model), "--answers", str(LUNG), "--to", str(target)])
    assert again.exit_code == 2
    (target / "golden" / "inputs.npz").write_bytes(b"")
    assert run(app, ["engines", "check", str(target)]).exit_code == 2
    assert '"$schema"' in run(app, ["engines", "schema"]).output
