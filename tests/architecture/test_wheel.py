"""The wheel, built and installed: what a site gets, without the working tree to hide behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, cast

import pytest

from tests.architecture.tree import PACKAGES, ROOT

NEEDED: Final = (
    "engines/py.typed",
    "engines/reference/*/engine.toml",
    "engines/reference/*/golden/*",
    "engines/reference/*/model.onnx",
    "node/admin/static/*",
    "node/admin/templates/*.html",
    "node/profiles/*.toml",
    "node/py.typed",
    "storage/migrations/script.py.mako",
    "storage/migrations/versions/0*.py",
    "storage/py.typed",
)
LOOK_AROUND: Final = """
import importlib, json, pkgutil, sys
from importlib.metadata import packages_distributions

packages = ("node", "engines", "storage")
run_by_alembic = "storage.migrations.env"  # works only inside a migration
files = {}
for package in packages:
    module = importlib.import_module(package)
    files[package] = module.__file__
    for info in pkgutil.walk_packages(module.__path__, f"{package}."):
        if info.name != run_by_alembic:
            files[info.name] = importlib.import_module(info.name).__file__
owners = {package: packages_distributions()[package] for package in packages}
print(json.dumps({"files": files, "owners": owners}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A wheel, and a virtual environment that holds it and what it depends on, and nothing else."""

    wheel: Path
    environment: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment from `/`, with no variable that leads elsewhere."""
        kept = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        return subprocess.run(
            [str(self.environment / "bin" / command[0]), *command[1:]],
            cwd="/",
            env={**kept, "PATH": "/usr/bin:/bin", "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def _build(folder: Path) -> Path:
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def _lend_dependencies(environment: Path, shelf: Path) -> None:
    """Let the environment see the installed dependencies, but nothing of this distribution."""
    shelf.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        ours = path.name.lstrip("_").startswith("wetread") or path.name in PACKAGES
        if not ours and path.suffix != ".pth":
            (shelf / path.name).symlink_to(path)
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    (site_packages / "dependencies.pth").write_text(f"{shelf}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it in a new virtual environment."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = _build(folder / "dist")
    environment = folder / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    into = ["--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *into, *install], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _lend_dependencies(environment, folder / "shelf")
    return Installed(wheel=wheel, environment=environment)


@pytest.fixture(scope="module")
def around(installed: Installed) -> Mapping[str, Mapping[str, object]]:
    """Import every module of the installed wheel; return their files and who owns the packages."""
    done = installed.run("python", "-W", "error", "-c", LOOK_AROUND)
    assert done.returncode == 0, done.stderr
    return cast("Mapping[str, Mapping[str, object]]", json.loads(done.stdout))


def _tracked_files() -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def test_the_wheel_holds_every_file_of_the_three_packages_and_no_other(
    installed: Installed,
) -> None:
    held = {name for name in zipfile.ZipFile(installed.wheel).namelist() if not name.endswith("/")}
    code = {name for name in held if ".dist-info/" not in name}
    assert code == _tracked_files()


@pytest.mark.parametrize("pattern", NEEDED)
def test_the_wheel_holds_the_data_that_the_node_needs(pattern: str, installed: Installed) -> None:
    held = zipfile.ZipFile(installed.wheel).namelist()
    assert [name for name in held if fnmatch(name, pattern)]


def test_the_command_runs_from_anywhere(installed: Installed) -> None:
    done = installed.run("wetread", "--help")
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
    assert "run" in done.stdout


def test_every_module_imports_from_the_wheel(
    installed: Installed, around: Mapping[str, Mapping[str, object]]
) -> None:
    files = around["files"]
    expected = {name for name in _tracked_files() if name.endswith(".py")}
    assert len(files) == len(expected) - 1  # all but storage/migrations/env.py
    elsewhere = [file for file in files.values() if str(installed.environment) not in str(file)]
    assert elsewhere == []


def test_only_this_distribution_owns_the_three_packages(
    around: Mapping[str, Mapping[str, object]],
) -> None:
    assert around["owners"] == {package: ["wetread"] for package in PACKAGES}


def test_the_dependencies_of_the_wheel_are_those_of_the_project(installed: Installed) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = zipfile.ZipFile(installed.wheel).read(
        f"wetread-{project['version']}.dist-info/METADATA"
    )
    required = [line for line in metadata.decode().splitlines() if line.startswith("Requires-Dist")]
    always = [line for line in required if "extra ==" not in line]
    assert len(always) == len(project["dependencies"])
