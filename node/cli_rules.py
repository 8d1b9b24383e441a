"""`wetread rules ...`: check, explain, show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from node import app as composition
from node.catalogue import read_packages
from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, err, out
from node.clock import system_clock
from node.planning import NoRulesError, Planner, RuleBooks, read_rules
from node.routing import parse_rules
from node.sandbox import Sandbox
from node.settings import load_settings
from node.stores import open_stores
from node.workshop import engine_folders

rules_app = typer.Typer(help="Routing rules.", no_args_is_help=True)


@rules_app.command("check")
def rules_check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A rules file.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Check engines and destinations too.")
    ] = None,
) -> None:
    """Check a rules file: syntax, fields, and with --config the engines and destinations."""
    with clear_errors():
        if config is None:
            rules = parse_rules(file.read_text(encoding="utf-8"))
        else:
            settings = load_settings(config)
            engines = read_packages(engine_folders(settings))
            rules = read_rules(
                file,
                engines=frozenset(item.package.name for item in engines),
                destinations=frozenset(settings.destinations),
            )
        out.print(f"{file}: {len(rules.rules)} rules, good", markup=False)


@rules_app.command("explain")
def rules_explain(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the rules in force decide for a study: each condition, value found and verdict."""
    with clear_errors():
        settings = load_settings(config)
        stores = open_stores(settings)
        sandbox = Sandbox(memory_mib=composition.HEADER_MEMORY_MIB)
        planner = Planner(
            studies=stores.studies,
            packs=stores.packs,
            rules=RuleBooks(stores.rules),
            sandbox=sandbox,
            clock=system_clock,
            max_attempts=settings.worker.max_attempts,
        )
        try:
            record = stores.studies.get(study)
            gone = stores.studies.gone(record.id)
            if gone:
                err.print(f"on what is left: {gone}", markup=False, soft_wrap=True)
            plan = planner.plan(record)
        finally:
            sandbox.close()
        if as_json:
            print(json.dumps(plan.decision.explanation))  # noqa: T201 - output for programs
            return
        tree = Tree(f"rule revision {plan.revision}: {len(plan.decision.jobs)} jobs")
        _grow(tree, plan.decision.explanation)
        out.print(tree)


@rules_app.command("show")
def rules_show(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print the rules in force, with their revision."""
    with clear_errors():
        current = open_stores(load_settings(config)).rules.current()
        if current is None:
            raise NoRulesError("no rules were ever loaded")
        sys.stdout.write(f"# revision {current.revision}, {current.created_at:%Y-%m-%d %H:%M}Z\n")
        sys.stdout.write(current.text)


def _grow(tree: Tree, value: object) -> None:
    """Hang an explanation into a tree: a comparison is one line, with what was found."""
    if isinstance(value, dict) and "field" in value:
        _grow_item(tree, value)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list):
                _grow(tree.add(escape(str(key))), item)
            else:
                tree.add(escape(f"{key}: {_shown(item)}"))
    elif isinstance(value, list | tuple):
        for item in value:
            _grow_item(tree, item)


def _grow_item(tree: Tree, item: object) -> None:
    if not isinstance(item, dict):
        tree.add(escape(_shown(item)))
    elif "field" in item and "op" in item:
        wanted = "" if item.get("value") is None else f" {_shown(item['value'])}"
        found = "absent" if item.get("found") is None else f"found {_shown(item['found'])}"
        line = f"{item['field']} {item['op']}{wanted}: {_shown(item['verdict'])} ({found})"
        tree.add(escape(line))
    else:
        name = next((str(item[key]) for key in ("rule", "series") if key in item), "")
        rest = {key: value for key, value in item.items() if str(value) != name}
        branch = tree.add(escape(name)) if name else tree
        _grow(branch, rest)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)
