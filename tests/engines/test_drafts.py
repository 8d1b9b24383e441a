from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from engines.base import Task, discover
from engines.drafts import draft
from engines.errors import PackageError
from engines.importing import import_model
from tests.end_to_end.packages import shipped_package

TASKS = sorted(discover("tasks", Task))  # type: ignore[type-abstract]  # a plugin base is abstract


@pytest.mark.parametrize("task", TASKS)
def test_a_draft_says_all_that_must_be_said_and_leaves_out_nothing_that_may_be(task: str) -> None:
    text = draft(task)
    table = tomllib.loads(text)
    assert table["task"] == task
    assert task in table
    assert "files" not in table
    everything = re.sub(r"(?m)^# (?=[\w\[])", "", text.partition("\n\n")[2])
    assert set(tomllib.loads(everything)) > set(table)
    settings = discover("tasks", Task)[task].settings_type  # type: ignore[type-abstract]  # as above
    assert set(tomllib.loads(everything)[task]) == set(settings.model_fields)


def test_a_draft_that_is_not_filled_in_is_refused_by_its_first_key(tmp_path: Path) -> None:
    (tmp_path / "engine.toml").write_text(draft("segmentation"))
    (model,) = shipped_package("ct-body-composition").glob("*.onnx")
    with pytest.raises(PackageError):
        import_model(model, tmp_path / "engine.toml", tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_kind_of_task_that_is_not_there_is_named() -> None:
    with pytest.raises(PackageError, match="'guessing' is not one of"):
        draft("guessing")
