"""`wetread retention`, `hold` and `release`: what is deleted, and what is not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Column, Table

from node.admin.pages import size_text
from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, open_settings, out
from node.clock import system_clock
from node.retaining import policy_of
from node.settings import Settings, load_settings
from node.stores import open_retention, open_stores
from storage.retention_records import Planned

StudyArgument = Annotated[str, typer.Argument(help="Study Instance UID.")]
ByOption = Annotated[str, typer.Option(help="Who says so; it stands on the timeline.")]


def retention(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would go, and how much it frees.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many items are printed.")] = 50,
) -> None:
    """Delete now what the rules of [retention] let go, as a running node does by itself."""
    with clear_errors():
        settings = open_settings(config)
        stores = open_stores(settings)
        try:
            retention = open_retention(settings, stores, system_clock)
            if dry_run:
                _print_plan(settings, retention.plan(), limit)
                return
            swept = retention.sweep()
        finally:
            stores.database.close()
        out.print(
            f"{swept.deletions} deletions, {swept.packs} whole packs, "
            f"{size_text(swept.freed)} freed; {swept.unfinished} wait for their pack",
            markup=False,
        )


def _print_plan(settings: Settings, plan: list[Planned], limit: int) -> None:
    if not policy_of(settings).deletes:
        out.print("[retention] names no rule: nothing is ever deleted", markup=False)
        return
    table = Table(
        "kind", "rule", Column("of", no_wrap=True, min_width=64), "since", "count", "bytes"
    )
    for item in plan[:limit]:
        table.add_row(
            item.kind.value,
            item.rule.value,
            item.what,
            f"{item.since:%Y-%m-%d %H:%M}Z",
            str(item.count),
            size_text(item.size),
        )
    if plan:
        out.print(table)
    if len(plan) > limit:
        out.print(f"and {len(plan) - limit} more", markup=False)
    total = size_text(sum(item.size for item in plan))
    out.print(f"{len(plan)} items, {total} would be freed; nothing was changed", markup=False)


def hold(
    study: StudyArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is shown with the study.")] = "",
    by: ByOption = "operator",
) -> None:
    """Keep a study from retention, whatever its rules say, until it is released."""
    with clear_errors():
        stores = open_stores(load_settings(config))
        stores.holds.hold(study, by=by, reason=reason)
        gone = stores.studies.gone(stores.studies.get(study).id)
        out.print(f"held{f'; but {gone}' if gone else ''}", markup=False, soft_wrap=True)


def release(
    study: StudyArgument, config: ConfigOption = DEFAULT_CONFIG, *, by: ByOption = "operator"
) -> None:
    """Leave a study that was held to the rules of retention again."""
    with clear_errors():
        stores = open_stores(load_settings(config))
        out.print("released" if stores.holds.release(study, by=by) else "it was not held")


def holds(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the studies that are held."""
    with clear_errors():
        table = Table(Column("study", no_wrap=True, min_width=64), "since (UTC)", "by", "reason")
        for item in open_stores(load_settings(config)).holds.list():
            table.add_row(
                item.study_instance_uid, f"{item.at:%Y-%m-%d %H:%M:%S}", item.by, item.reason
            )
        out.print(table)
