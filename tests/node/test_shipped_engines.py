"""`wetread engines verify --all`: every engine that ships gives the answer it is known for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli import app
from tests.engines.test_importing import threshold_model

ROOT = Path(__file__).parents[2]
ANSWERS = ROOT / "config" / "engines"
MODELS = ROOT.parent / "shared" / "models"
NAMES = sorted(path.parent.name for path in ANSWERS.glob("*/engine.toml"))
CONFIGURATION = """
[node]
data_dir = "data"
[listeners.dimse]
port = 0
allow_any_peer = true
"""


def verify_all(site: Path, *more: str | Path) -> Result:
    (site / "wetread.toml").write_text(CONFIGURATION)
    config = ["--config", str(site / "wetread.toml")]
    return CliRunner().invoke(app, ["engines", "verify", "--all", *map(str, more), *config])


def said(result: Result) -> Sequence[str]:
    return result.output.splitlines()


def test_every_engine_that_ships_gives_its_known_answer(tmp_path: Path) -> None:
    if not MODELS.is_dir():
        pytest.skip("NOT RUN: ../shared/models is not on this machine")
    result = verify_all(tmp_path, "--answers", ANSWERS, "--models", MODELS)
    assert result.exit_code == 0, result.output
    for name in NAMES:
        (line,) = [item for item in said(result) if item.startswith(name.replace("_", "-") + " ")]
        assert ": passed (" in line
    assert said(result)[-1] == f"{len(NAMES) + 1} passed, 0 failed, 0 not run"


def test_engines_without_their_weights_are_named_and_do_not_count_as_passed(tmp_path: Path) -> None:
    result = verify_all(tmp_path, "--answers", ANSWERS, "--models", tmp_path / "models")
    assert result.exit_code == 0, result.output
    for name in NAMES:
        assert f"{name}: NOT RUN no folder under {tmp_path / 'models'} holds " in result.output
    assert "brain_hippodeep: NOT RUN" in result.output
    assert "holds hippo.onnx, head.onnx, affine.onnx" in result.output
    assert said(result)[-1] == f"1 passed, 0 failed, {len(NAMES)} not run"


@pytest.fixture
def lungs(tmp_path: Path) -> tuple[Path, Path]:
    """Return answers for the lungs alone, and a folder with a model of that name."""
    answers, models = tmp_path / "answers", tmp_path / "models"
    shutil.copytree(ANSWERS / "lung_unet_ct", answers / "lung_unet_ct")
    (models / "any").mkdir(parents=True)
    threshold_model(models / "any" / "lung_unet.onnx")
    return answers, models


def test_a_model_with_another_answer_fails_by_name(
    lungs: tuple[Path, Path], tmp_path: Path
) -> None:
    answers, models = lungs
    result = verify_all(tmp_path, "--answers", answers, "--models", models)
    assert result.exit_code == 1
    assert "lung-unet-ct 1.0.0: FAILED sizes differs by " in result.output
    assert said(result)[-1] == "1 passed, 1 failed, 0 not run"


def test_answers_that_nobody_knows_the_result_of_fail(
    lungs: tuple[Path, Path], tmp_path: Path
) -> None:
    answers, models = lungs
    (answers / "lung_unet_ct" / "golden" / "expected.npz").unlink()
    result = verify_all(tmp_path, "--answers", answers, "--models", models)
    assert result.exit_code == 1
    assert "lung_unet_ct: FAILED PackageError: " in result.output
    assert "nobody knows what the model must give" in result.output


def test_a_folder_without_answers_is_told(tmp_path: Path) -> None:
    result = verify_all(tmp_path, "--answers", tmp_path / "none", "--models", MODELS)
    assert result.exit_code == 2
    assert "holds no folder with an engine.toml" in result.output
