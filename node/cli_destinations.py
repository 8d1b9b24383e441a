"""`wetread destinations ...`: the result profiles there are, and what each destination takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, err, out
from node.doors import build_profiles, build_targets
from node.interfaces import DeliveryTarget, PluginSettings
from node.probing import TRANSFER_SYNTAXES, Outlook, Probe, name_of_uid, outlook, probe_destination
from node.result_profiles import FindingKind, Profile, ResultProfiles
from node.settings import SettingsError, load_settings

destinations_app = typer.Typer(help="Destinations and their result profiles.", no_args_is_help=True)


@destinations_app.command("profiles")
def destinations_profiles(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the result profiles: what each sends, which destinations have it, where it lies."""
    with clear_errors():
        profiles = build_profiles(load_settings(config))
        if as_json:
            found = [_profile_json(item, profiles) for item in profiles.profiles.values()]
            print(json.dumps(found))  # noqa: T201 - output for programs
            return
        table = Table("profile", "destinations", "kinds of finding", "sets", show_lines=True)
        for profile in profiles.profiles.values():
            lines = {kind: _sets(profile, kind, profiles.installed) for kind in FindingKind}
            head = f"{profile.name}\n{profile.description}\n{profile.path}"
            users = "\n".join(_users(profile, profiles))
            for kinds, sets in _alike(lines):
                table.add_row(escape(head), escape(users), kinds, escape(sets))
                head = users = ""
        out.print(table)
        for name, objects in profiles.not_installed().items():
            err.print(f"{name}: not made here: {', '.join(objects)}", markup=False)


@destinations_app.command("probe")
def destinations_probe(
    name: Annotated[str, typer.Argument(help="Destination; all, where none is given.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask destinations which result objects they take, without sending one; propose a profile."""
    with clear_errors():
        settings = load_settings(config)
        targets, profiles = build_targets(settings), build_profiles(settings)
        if name and name not in targets:
            raise SettingsError(f"destinations: {name!r} is not one of {sorted(targets)}")
        chosen = {name: targets[name]} if name else targets
        probes = {
            key: probe_destination(target, list(profiles.profiles.values()))
            for key, target in chosen.items()
        }
    if as_json:
        found = {key: _probe_json(key, probes[key], profiles) for key in probes}
        print(json.dumps(found))  # noqa: T201 - output for programs
    else:
        for key, probe in probes.items():
            _show(key, chosen[key], probe, profiles)
    if any(probe.negotiated.problem or not probe.taken for probe in probes.values()):
        raise typer.Exit(1)


def _show(
    name: str,
    target: DeliveryTarget[PluginSettings],
    probe: Probe,
    profiles: ResultProfiles,
) -> None:
    out.print(f"{name}: {target.address()}", markup=False)
    if probe.negotiated.problem:
        err.print(f"  {probe.negotiated.problem}", style="red", markup=False, soft_wrap=True)
        return
    table = Table("SOP class", "UID", *TRANSFER_SYNTAXES.values())
    for uid, syntaxes in probe.classes().items():
        taken = ("yes" if syntax in syntaxes else "-" for syntax in TRANSFER_SYNTAXES)
        table.add_row(name_of_uid(uid), uid, *taken)
    out.print(table)
    profile = profiles.of(name)
    sets = {kind: _outlook(profile, kind, probe, profiles) for kind in FindingKind}
    table = Table(
        f"by its profile {escape(profile.name)}", "what arrives, of what can carry the finding"
    )
    for kinds, line in _alike({kind: "\n".join(map(_worded, sets[kind])) for kind in sets}):
        table.add_row(kinds, line)
    out.print(table)
    refused = any(item.refused for found in sets.values() for item in found)
    out.print(_advice(profile, probe, refused=refused), markup=False)


def _outlook(
    profile: Profile, kind: FindingKind, probe: Probe, profiles: ResultProfiles
) -> Sequence[Outlook]:
    return outlook(profile, kind, taken=probe.taken, installed=profiles.installed)


def _worded(item: Outlook) -> str:
    if not item.refused:
        return item.arrives
    return f"{item.arrives or 'nothing'} (refused: {', '.join(item.refused)})"


def _advice(profile: Profile, probe: Probe, *, refused: bool) -> str:
    if not probe.taken:
        return "It takes no result object at all: every result would be silent."
    fits = "" if refused else f"Its profile fits: nothing that {profile.name} sends is refused."
    if probe.proposal is None:
        return fits or "No profile fits what it takes; write one that names only that."
    if probe.proposal.name == profile.name:
        return fits or f"Its profile fits best; what is refused of {profile.name} has a fallback."
    return (
        f'{fits} By negotiation: profile = "{probe.proposal.name}" ({probe.proposal.description}) '
        "What its viewer shows cannot be negotiated."
    ).lstrip()


def _sets(profile: Profile, kind: FindingKind, installed: frozenset[str]) -> str:
    return "\n".join(dict.fromkeys(" > ".join(each) for each in profile.sets(kind, installed)))


def _alike(lines: Mapping[FindingKind, str]) -> list[tuple[str, str]]:
    """Put the kinds of finding together for which the same is said."""
    together: dict[str, list[str]] = {}
    for kind, line in lines.items():
        together.setdefault(line, []).append(kind.value)
    return [("\n".join(kinds), line) for line, kinds in together.items()]


def _users(profile: Profile, profiles: ResultProfiles) -> list[str]:
    return [name for name, used in profiles.destinations.items() if used == profile.name]


def _profile_json(profile: Profile, profiles: ResultProfiles) -> Mapping[str, object]:
    return {
        "name": profile.name,
        "description": profile.description,
        "path": str(profile.path),
        "destinations": _users(profile, profiles),
        "not_installed": sorted(set(profile.named()) - profiles.installed),
        "sets": {kind: profile.sets(kind, profiles.installed) for kind in FindingKind},
    }


def _probe_json(name: str, probe: Probe, profiles: ResultProfiles) -> Mapping[str, object]:
    profile = profiles.of(name)
    return {
        "problem": probe.negotiated.problem,
        "accepted": probe.classes(),
        "refused": {
            f"{offer.sop_class_uid} {offer.transfer_syntax_uid}": reason
            for offer, reason in probe.negotiated.refused.items()
        },
        "objects": sorted(probe.taken),
        "profile": profile.name,
        "outlook": {
            kind: [
                {"arrives": item.arrives, "refused": item.refused}
                for item in outlook(profile, kind, taken=probe.taken, installed=profiles.installed)
            ]
            for kind in FindingKind
        },
        "proposal": None if probe.proposal is None else probe.proposal.name,
    }
