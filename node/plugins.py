"""Finds plugins: exactly one class per file. The only place of the node that imports by name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import TypeVar

PluginT = TypeVar("PluginT")


class PluginError(Exception):
    """A plugin file does not define exactly one plugin; the message names the file."""


def discover(package: ModuleType, base: type[PluginT]) -> dict[str, type[PluginT]]:
    """Import every public module of a plugin package and return its classes by their `name`.

    Raises:
        PluginError: a file defines none or several, two share a name, or one cannot be imported.
    """
    found: dict[str, type[PluginT]] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        if info.name.startswith("_"):
            continue
        plugin = _only_class(f"{package.__name__}.{info.name}", base)
        name = str(getattr(plugin, "name", ""))
        if not name or name in found:
            raise PluginError(f"{plugin.__module__}: the name {name!r} is empty or taken")
        found[name] = plugin
    return found


def names_of(package: ModuleType) -> frozenset[str]:
    """Return the names of the plugins of a package without importing one: their files'."""
    return frozenset(
        info.name for info in pkgutil.iter_modules(package.__path__) if info.name[0] != "_"
    )


def _only_class(module_name: str, base: type[PluginT]) -> type[PluginT]:
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(f"{module_name}: cannot be imported: {error}") from error
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base)
        and member.__module__ == module_name
        and not inspect.isabstract(member)
    ]
    if len(classes) != 1:
        raise PluginError(f"{module_name}: defines {len(classes)} {base.__name__} classes, not 1")
    return classes[0]
