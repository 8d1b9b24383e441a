"""What this machine has to run engines on: devices, their driver, and versions of libraries.

Nothing heavy is imported, so that the answer comes at once; see `engines.devices` on the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from engines.base import Runtime, discover
from engines.devices import Devices, find_devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found. `versions` holds the libraries of runtimes that are installed."""

    devices: Devices
    versions: Mapping[str, str]


def probe() -> Probe:
    """Look at the machine once. Never raises: what is missing is told."""
    runtimes = discover("runtimes", Runtime)  # type: ignore[type-abstract]  # a plugin base is abstract
    names = sorted({name for runtime in runtimes.values() for name in runtime.requires})
    found = {name: _version(name) for name in names}
    return Probe(
        devices=find_devices(), versions={name: text for name, text in found.items() if text}
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
