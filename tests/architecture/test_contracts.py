"""The layering contracts: kept by the tree, and each one really broken by what it forbids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import pytest

from tests.architecture.tree import PACKAGES, ROOT

Contract: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """Code that breaks a contract: appended to a file of a copy of the tree, or a file of its own.

    `shown` is what the report must then say.
    """

    contract: str
    file: str
    code: str
    shown: str


OFFENCES = (
    Offence(
        contract="packages",
        file="storage/states.py",
        code="import engines.findings",
        shown="storage.states -> engines.findings",
    ),
    Offence(
        contract="packages",
        file="engines/images.py",
        code="import storage.records",
        shown="engines.images -> storage.records",
    ),
    Offence(
        contract="packages",
        file="engines/errors.py",
        code="import node.interfaces",
        shown="engines.errors -> node.interfaces",
    ),
    Offence(
        contract="packages",
        file="storage/records.py",
        code="import node.clock",
        shown="storage.records -> node.clock",
    ),
    Offence(
        contract="node-layers",
        file="node/worker.py",
        code="import node.results.segmentation",
        shown="node.worker -> node.results.segmentation",
    ),
    Offence(
        contract="node-layers",
        file="node/dispatch.py",
        code="import node.ingest",
        shown="node.dispatch -> node.ingest",
    ),
    Offence(contract="node-layers", file="node/stray.py", code="", shown="- node.stray"),
    Offence(
        contract="engines-layers",
        file="engines/runtimes/onnxruntime.py",
        code="import engines.tasks",
        shown="engines.runtimes.onnxruntime -> engines.tasks",
    ),
    Offence(
        contract="engines-layers",
        file="engines/images.py",
        code="import engines.base",
        shown="engines.images -> engines.base",
    ),
    Offence(contract="engines-layers", file="engines/stray.py", code="", shown="- engines.stray"),
    Offence(
        contract="storage-layers",
        file="storage/models.py",
        code="import storage.jobs",
        shown="storage.models -> storage.jobs",
    ),
    Offence(contract="storage-layers", file="storage/stray.py", code="", shown="- storage.stray"),
    Offence(
        contract="objects-without-tables",
        file="storage/objects.py",
        code="import storage.states",
        shown="storage.objects -> storage.states",
    ),
    Offence(
        contract="plugins-see-interfaces",
        file="node/listeners/folder.py",
        code="import node.ingest",
        shown="node.listeners.folder -> node.ingest",
    ),
    Offence(
        contract="plugins-see-interfaces",
        file="node/delivery/folder.py",
        code="import storage.records",
        shown="node.delivery.folder -> storage.records",
    ),
    Offence(  # a type is knowledge too
        contract="plugins-see-interfaces",
        file="node/results/segmentation.py",
        code="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import node.settings",
        shown="node.results.segmentation -> node.settings",
    ),
    Offence(  # by way of another
        contract="plugins-see-interfaces",
        file="node/interfaces.py",
        code="import storage.states",
        shown="node.interfaces -> storage.states",
    ),
    Offence(
        contract="listeners-independent",
        file="node/listeners/folder.py",
        code="import node.listeners.dimse",
        shown="node.listeners.folder -> node.listeners.dimse",
    ),
    Offence(
        contract="results-independent",
        file="node/results/measurement_report.py",
        code="import node.results.segmentation",
        shown="node.results.measurement_report -> node.results.segmentation",
    ),
    Offence(
        contract="delivery-independent",
        file="node/delivery/folder.py",
        code="import node.delivery.dimse",
        shown="node.delivery.folder -> node.delivery.dimse",
    ),
    Offence(
        contract="tasks-independent",
        file="engines/tasks/second.py",
        code="import engines.tasks.segmentation",
        shown="engines.tasks.second -> engines.tasks.segmentation",
    ),
    Offence(
        contract="imports-independent",
        file="engines/imports/second.py",
        code="import engines.imports.monai_bundle",
        shown="engines.imports.second -> engines.imports.monai_bundle",
    ),
    Offence(
        contract="runtimes-independent",
        file="engines/runtimes/second.py",
        code="import engines.runtimes.onnxruntime",
        shown="engines.runtimes.second -> engines.runtimes.onnxruntime",
    ),
    Offence(
        contract="tables-private",
        file="node/ingest.py",
        code="import storage.models",
        shown="node.ingest -> storage.models",
    ),
    Offence(
        contract="tables-private",
        file="node/admin/context.py",
        code="import storage.database",
        shown="node.admin.context -> storage.database",
    ),
    Offence(
        contract="statements-private",
        file="node/admin/context.py",
        code="import storage.queries",
        shown="node.admin.context -> storage.queries",
    ),
    Offence(
        contract="sql-in-storage",
        file="node/app.py",
        code="import sqlalchemy.orm",
        shown="node.app -> sqlalchemy",
    ),
    Offence(
        contract="inference-in-runtimes",
        file="node/inference.py",
        code="import onnxruntime",
        shown="node.inference -> onnxruntime",
    ),
    Offence(  # inside a function as well
        contract="inference-in-runtimes",
        file="engines/tasks/segmentation.py",
        code="def _load() -> None:\n    import torch.cuda",
        shown="engines.tasks.segmentation -> torch",
    ),
    Offence(
        contract="inference-in-runtimes",
        file="engines/base.py",
        code="import tensorrt",
        shown="engines.base -> tensorrt",
    ),
    Offence(
        contract="associations-at-the-edge",
        file="node/listeners/folder.py",
        code="import pynetdicom.ae",
        shown="node.listeners.folder -> pynetdicom",
    ),
    Offence(
        contract="requests-at-the-edge",
        file="node/delivery/folder.py",
        code="import httpx",
        shown="node.delivery.folder -> httpx",
    ),
    Offence(
        contract="highdicom-in-results",
        file="engines/findings.py",
        code="import highdicom",
        shown="engines.findings -> highdicom",
    ),
    Offence(
        contract="routing-pure",
        file="node/routing.py",
        code="from time import monotonic",
        shown="node.routing -> time",
    ),
    Offence(  # by way of another
        contract="routing-pure",
        file="node/rules.py",
        code="import node.sandbox",
        shown="node.rules -> node.sandbox",
    ),
    Offence(
        contract="no-cycles",
        file="node/admin/wording.py",
        code="import node.admin.pages",
        shown="No cycles are allowed in node.admin",
    ),
)


def _contracts() -> dict[str, Contract]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = cast("list[Contract]", settings["tool"]["importlinter"]["contracts"])
    return {str(contract["id"]): contract for contract in listed}


def _names(contract_id: str, key: str) -> set[str]:
    return set(cast("list[str]", _contracts()[contract_id][key]))


def _lint_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def copied_tree(tmp_path: Path) -> Iterator[Path]:
    """Give a copy of the three packages and their contracts, to be spoilt."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.onnx", "*.npz")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_the_tree_keeps_every_contract() -> None:
    report = _lint_imports(ROOT)
    assert report.returncode == 0, report.stdout + report.stderr


@pytest.mark.parametrize(
    "offence", OFFENCES, ids=lambda offence: f"{offence.contract}: {offence.file}"
)
def test_an_offence_breaks_its_contract(offence: Offence, copied_tree: Path) -> None:
    with (copied_tree / offence.file).open("a", encoding="utf-8") as file:
        file.write(f"\n{offence.code}\n")
    report = _lint_imports(copied_tree, "--contract", offence.contract)
    name = _contracts()[offence.contract]["name"]
    assert report.returncode == 1, report.stdout + report.stderr
    assert f"{name} BROKEN" in report.stdout
    assert offence.shown in report.stdout


def test_every_contract_is_broken_by_some_offence() -> None:
    assert {offence.contract for offence in OFFENCES} == set(_contracts())


def test_no_contract_ignores_an_import_or_a_missing_layer() -> None:
    for name, contract in _contracts().items():
        assert not {"ignore_imports", "exhaustive_ignores"} & set(contract), name
        assert "(" not in "".join(cast("list[str]", contract.get("layers", []))), name


def test_every_result_writer_is_in_the_contract_of_independence() -> None:
    files = (ROOT / "node" / "results").glob("[!_]*.py")
    assert _names("results-independent", "modules") == {
        f"node.results.{path.stem}" for path in files
    }


def test_every_module_of_the_node_is_hidden_from_plugins_but_interfaces_and_clock() -> None:
    children = {path.stem for path in (ROOT / "node").glob("*.py")} - {"__init__"}
    children |= {path.parent.name for path in (ROOT / "node").glob("*/__init__.py")}
    visible = {"interfaces", "expectation", "clock", "listeners", "results", "delivery"}
    hidden = {f"node.{child}" for child in children - visible}
    assert _names("plugins-see-interfaces", "forbidden_modules") == hidden | {"storage"}
