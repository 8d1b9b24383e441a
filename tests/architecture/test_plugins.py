"""What every plugin must keep, whoever wrote it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Final, cast

import pytest
from pydantic import BaseModel

import engines.base
import node.delivery
import node.listeners
import node.results
from engines.base import Runtime, Task
from engines.formats import Format
from engines.manifest import TaskSettings
from node.interfaces import DeliveryTarget, Listener, PluginSettings, ResultWriter
from node.plugins import discover
from tests.architecture.tree import ROOT

NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""What a person writes in a configuration file, a rule or an `engine.toml`."""

FOLDERS: Final = (
    "node/listeners",
    "node/results",
    "node/delivery",
    "engines/tasks",
    "engines/runtimes",
    "engines/imports",
)
INFERENCE_LIBRARIES: Final = sorted(
    {
        name
        for runtime in engines.base.discover("runtimes", Runtime).values()  # type: ignore[type-abstract]
        for name in runtime.requires
    }
)
ON_A_BARE_MACHINE: Final = f"""
import json, sys, threading
sys.modules.update(dict.fromkeys({INFERENCE_LIBRARIES!r}))
import engines.base, node.delivery, node.listeners, node.results
from node.interfaces import DeliveryTarget, Listener, ResultWriter
from node.plugins import discover
for package, base in (
    (node.listeners, Listener), (node.results, ResultWriter), (node.delivery, DeliveryTarget)
):
    discover(package, base)
engines.base.discover("tasks", engines.base.Task)
runtimes = engines.base.discover("runtimes", engines.base.Runtime)
said = {{name: runtime().is_available() for name, runtime in runtimes.items()}}
print(json.dumps({{
    "threads": [thread.name for thread in threading.enumerate()],
    "runtimes": {{name: [answer.available, answer.reason] for name, answer in said.items()}},
}}))
"""


def _found(folder: str) -> Mapping[str, type[object]]:
    """Return the plugins of a folder by name, found as the node finds them."""
    match folder:
        case "node/listeners":
            return discover(node.listeners, Listener)
        case "node/results":
            return discover(node.results, ResultWriter)
        case "node/delivery":
            return discover(node.delivery, DeliveryTarget)
        case "engines/imports":
            return engines.base.discover("imports", Format)
        case "engines/tasks":
            return engines.base.discover("tasks", Task)
        case _:
            return engines.base.discover("runtimes", Runtime)


def _settings_types() -> Iterator[tuple[str, type[BaseModel]]]:
    for folder in ("node/listeners", "node/delivery", "engines/tasks"):
        for name, plugin in _found(folder).items():
            yield f"{folder}/{name}.py", cast("type[BaseModel]", vars(plugin)["settings_type"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_a_plugin_folder_is_one_plugin_of_that_name(folder: str) -> None:
    files = {path.stem for path in (ROOT / folder).glob("[!_]*.py")}
    names = set(_found(folder))
    assert names == files
    assert names
    assert all(NAME.fullmatch(name) for name in names)


def test_the_settings_of_every_plugin_are_its_own_strict_and_frozen() -> None:
    for place, settings in _settings_types():
        assert issubclass(settings, PluginSettings | TaskSettings), place
        assert settings not in (PluginSettings, TaskSettings), place
        assert settings.model_config.get("extra") == "forbid", place
        assert settings.model_config.get("frozen") is True, place


def test_every_setting_of_a_listener_or_target_says_what_it_is() -> None:
    silent = [
        f"{place}: {key}"
        for place, settings in _settings_types()
        if issubclass(settings, PluginSettings)
        for key, field in settings.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_result_writers_follow_writers_that_exist_and_never_in_a_circle() -> None:
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]
    follows = {name: writer.follows for name, writer in writers.items()}
    order = list(TopologicalSorter(follows).static_order())
    assert set(order) == set(writers)


def test_plugins_import_on_a_bare_machine_and_runtimes_say_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_A_BARE_MACHINE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["threads"] == ["MainThread"], "importing a plugin started a thread"
    runtimes = engines.base.discover("runtimes", Runtime)  # type: ignore[type-abstract]
    for name, runtime in runtimes.items():
        available, reason = answer["runtimes"][name]
        assert not available, name
        assert any(required in reason for required in runtime.requires), reason
