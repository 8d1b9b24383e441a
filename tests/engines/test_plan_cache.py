from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines.errors import (
    PlanBuildError,
    PlanChangedError,
    PlanTruncatedError,
    PlanVersionError,
    UnavailableError,
)
from engines.plan_cache import PlanCache, read_sealed, write_sealed
from engines.plan_key import BuiltBy, PlanRecipe

BUILT_BY = BuiltBy(backend="tensorrt_rtx", version="1.7.1.116", cuda="13.0")
RECIPE = PlanRecipe(
    onnx_sha256="aa",
    built_by=BUILT_BY,
    targets=("SM89",),
    inputs=(),
    precision="float32",
    precision_recipe="as given",
)
PLAN = b"a plan of some length"


def never() -> bytes:
    raise AssertionError("built again")


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    """Return a cache that holds the plan."""
    made = PlanCache(tmp_path / "plans")
    assert made.plan(RECIPE, lambda: PLAN) == PLAN
    return made


def place(tmp_path: Path, kind: str = "plan") -> Path:
    return tmp_path / "plans" / f"{RECIPE.key()}.{kind}"


def test_a_plan_is_built_once_and_then_read(cache: PlanCache, tmp_path: Path) -> None:
    assert cache.plan(RECIPE, never) == PLAN
    assert PlanCache(tmp_path / "plans").read(RECIPE.key(), BUILT_BY) == PLAN
    record = json.loads(place(tmp_path, "json").read_text())
    assert record["recipe"]["onnx_sha256"] == "aa"


def test_another_recipe_is_another_plan(cache: PlanCache) -> None:
    other = dataclasses.replace(RECIPE, onnx_sha256="ab")
    assert cache.plan(other, lambda: b"another") == b"another"
    assert cache.plan(RECIPE, never) == PLAN


def test_there_is_no_plan_before_one_is_built(tmp_path: Path) -> None:
    assert PlanCache(tmp_path).read(RECIPE.key(), BUILT_BY) is None


@pytest.mark.parametrize("place_of_change", [0, 7, len(PLAN) - 1])
def test_a_changed_byte_is_refused(cache: PlanCache, tmp_path: Path, place_of_change: int) -> None:
    changed = bytearray(PLAN)
    changed[place_of_change] ^= 1
    place(tmp_path).write_bytes(changed)
    with pytest.raises(PlanChangedError, match="SHA-256"):
        cache.read(RECIPE.key(), BUILT_BY)


@pytest.mark.parametrize("data", [b"", PLAN[:-1], PLAN + b"x"])
def test_a_plan_of_another_length_is_refused(cache: PlanCache, tmp_path: Path, data: bytes) -> None:
    place(tmp_path).write_bytes(data)
    with pytest.raises(PlanTruncatedError, match=f"{len(data)} bytes, {len(PLAN)} were built"):
        cache.read(RECIPE.key(), BUILT_BY)


@pytest.mark.parametrize(
    "change", [{"version": "1.6.0.1"}, {"cuda": "12.9"}, {"machine": "aarch64"}]
)
def test_a_plan_of_another_version_is_refused(cache: PlanCache, change: dict[str, str]) -> None:
    with pytest.raises(PlanVersionError, match=r"was built by tensorrt_rtx 1\.7\.1\.116"):
        cache.read(RECIPE.key(), dataclasses.replace(BUILT_BY, **change))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"sha256": "a", "size": 3, "recipe": {}}'])
def test_a_record_that_cannot_be_read_counts_as_a_change(
    cache: PlanCache, tmp_path: Path, text: str
) -> None:
    place(tmp_path, "json").write_text(text)
    with pytest.raises(PlanChangedError, match="record"):
        cache.read(RECIPE.key(), BUILT_BY)


def test_a_damaged_plan_is_set_aside_and_built_again(cache: PlanCache, tmp_path: Path) -> None:
    place(tmp_path).write_bytes(PLAN[:-1])
    assert cache.plan(RECIPE, lambda: PLAN) == PLAN
    assert cache.plan(RECIPE, never) == PLAN
    assert place(tmp_path, "plan.damaged").read_bytes() == PLAN[:-1]


def test_a_plan_without_its_record_is_none(cache: PlanCache, tmp_path: Path) -> None:
    place(tmp_path, "json").unlink()
    assert cache.read(RECIPE.key(), BUILT_BY) is None


def test_a_build_that_fails_leaves_nothing_and_lets_the_next_one_try(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise PlanBuildError("no")

    cache = PlanCache(tmp_path / "plans")
    with pytest.raises(PlanBuildError):
        cache.plan(RECIPE, fail)
    assert not place(tmp_path).exists()
    assert cache.plan(RECIPE, lambda: PLAN) == PLAN


def test_what_a_killed_build_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "plans" / f"{RECIPE.key()}.plan.4711.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    PlanCache(tmp_path / "plans").plan(RECIPE, lambda: PLAN)
    assert not left.exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "plans").write_bytes(b"a file")
    with pytest.raises(UnavailableError, match="plans cannot be read"):
        PlanCache(tmp_path / "plans" / "deeper").plan(RECIPE, lambda: PLAN)


TWO_AT_ONCE = """
import sys, time
from pathlib import Path
from engines.plan_cache import PlanCache
from tests.engines.test_plan_cache import PLAN, RECIPE
folder = Path(sys.argv[1])
def build():
    with (folder / "builds").open("a") as log:
        log.write("one\\n")
    time.sleep(1.0)
    return PLAN
(folder / f"ready-{sys.argv[2]}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
assert PlanCache(folder / "plans").plan(RECIPE, build) == PLAN
"""


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", TWO_AT_ONCE, str(folder), name], cwd=root)


def test_two_processes_that_want_a_plan_build_it_once(tmp_path: Path) -> None:
    children = [start(tmp_path, name) for name in ("a", "b")]
    assert [child.wait(60) for child in children] == [0, 0]
    assert (tmp_path / "builds").read_text() == "one\n"


def test_a_process_that_is_killed_as_it_builds_holds_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "ready-test").touch()
    child = start(tmp_path, "a")
    while not (tmp_path / "builds").exists():
        assert child.poll() is None
    child.kill()
    child.wait()
    assert PlanCache(tmp_path / "plans").plan(RECIPE, lambda: PLAN) == PLAN


def test_sealed_bytes_come_back_unless_they_changed(tmp_path: Path) -> None:
    path = tmp_path / "device.timing"
    assert read_sealed(path) == b""
    write_sealed(path, b"timings")
    assert read_sealed(path) == b"timings"
    path.write_bytes(path.read_bytes()[:-1])
    assert read_sealed(path) == b""
    write_sealed(tmp_path / "nowhere" / "x", b"lost")
    assert not (tmp_path / "nowhere").exists()
