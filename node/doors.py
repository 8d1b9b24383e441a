"""The ways in and out that the configuration asks for, built from the plugins that are there."""

from __future__ import annotations

from typing import Protocol

import node.delivery
import node.listeners
import node.results
from engines.decoding import has_decoder
from node.dicomweb.settings import DicomwebSettings
from node.interfaces import (
    DeliveryTarget,
    Listener,
    PluginSettings,
    SharedListener,
)
from node.listeners._transfer_syntaxes import TRANSFER_SYNTAXES
from node.plugins import discover, names_of
from node.result_profiles import (
    DEFAULT,
    ProfileError,
    ResultProfiles,
    read_profiles,
    shipped_profiles,
)
from node.settings import Settings, SettingsError, validate_plugin_table


def accepted_transfer_syntaxes() -> dict[str, list[str]]:
    """Return which of those that are accepted can be decoded here, and which are only kept."""
    found: dict[str, list[str]] = {"decoded": [], "kept_only": []}
    for uid in TRANSFER_SYNTAXES:
        found["decoded" if has_decoder(uid) else "kept_only"].append(uid)
    return found


class WayIn(Protocol):
    """A listener, or several processes that share one: what a node starts and stops."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    def start(self) -> None:
        """Open the door. Returns when instances can arrive."""
        ...

    def stop(self) -> None:
        """Close the door, finishing what is in flight within a grace time."""
        ...

    def address(self) -> str:
        """Say where the door is, for people."""
        ...


def build_targets(settings: Settings) -> dict[str, DeliveryTarget[PluginSettings]]:
    """Build every configured destination.

    Raises:
        SettingsError: naming the key path.
    """
    kinds = discover(node.delivery, DeliveryTarget)  # type: ignore[type-abstract]  # a plugin base
    targets: dict[str, DeliveryTarget[PluginSettings]] = {}
    for name, table in settings.destinations.items():
        path = f"destinations.{name}"
        raw = dict(table)
        kind = raw.pop("kind", None)
        raw.pop("profile", None)
        raw.pop("reject_superseded", None)
        if kind not in kinds:
            raise SettingsError(f"{path}.kind: {kind!r} is not one of {sorted(kinds)}")
        target = kinds[str(kind)]
        targets[name] = target(validate_plugin_table(raw, target.settings_type, path))
    return targets


def build_profiles(settings: Settings) -> ResultProfiles:
    """Read the result profiles, and which destination has which.

    Raises:
        ProfileError: naming the file of a profile, or the key path of a destination.
    """
    installed = names_of(node.results)
    profiles = read_profiles((shipped_profiles(), *settings.profiles.folders), installed)
    destinations: dict[str, str] = {}
    for name, table in settings.destinations.items():
        profile = table.get("profile", DEFAULT)
        if profile not in profiles:
            raise ProfileError(
                f"destinations.{name}.profile: {profile!r} is not one of {sorted(profiles)}"
            )
        destinations[name] = str(profile)
    return ResultProfiles(
        profiles=profiles,
        destinations=destinations,
        installed=installed,
        rejecting=_rejecting(settings),
    )


def _rejecting(settings: Settings) -> frozenset[str]:
    tables = settings.destinations
    for name, table in tables.items():
        if not isinstance(table.get("reject_superseded", False), bool):
            raise ProfileError(f"destinations.{name}.reject_superseded: must be true or false")
    return frozenset(name for name, table in tables.items() if table.get("reject_superseded"))


def check_listeners(
    settings: Settings,
) -> list[tuple[type[Listener[PluginSettings]], PluginSettings]]:
    """Check the table of every configured listener; open none.

    Raises:
        SettingsError: naming the key path.
    """
    kinds = discover(node.listeners, Listener)  # type: ignore[type-abstract]  # a plugin base
    checked: list[tuple[type[Listener[PluginSettings]], PluginSettings]] = []
    for name, table in settings.listeners.items():
        if name not in kinds:
            raise SettingsError(f"listeners.{name}: is not one of {sorted(kinds)}")
        kind: type[Listener[PluginSettings]] = kinds[name]
        path = f"listeners.{name}"
        valid = validate_plugin_table(table, kind.settings_type, path)
        if processes_of(kind, valid) > 1 and settings.database.url.startswith("sqlite"):
            raise SettingsError(
                f"{path}.processes: several processes need PostgreSQL (database.url); SQLite has "
                "one writer, so the node's own process is the only one that may listen"
            )
        checked.append((kind, valid))
    return checked


def check_dicomweb(settings: Settings) -> DicomwebSettings | None:
    """Check the table of the read side of DICOMweb; None: there is none.

    Raises:
        SettingsError: naming the key path.
    """
    if settings.dicomweb is None:
        return None
    found = validate_plugin_table(settings.dicomweb, DicomwebSettings, "dicomweb")
    return found if isinstance(found, DicomwebSettings) else None


def processes_of(kind: type[Listener[PluginSettings]], settings: PluginSettings) -> int:
    """Return how many processes a listener runs in; 1: the node's own."""
    return kind.processes(settings) if issubclass(kind, SharedListener) else 1
