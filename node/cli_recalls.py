"""`wetread recall` and `recalls`: results that were wrong, taken back wherever they went."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.table import Column, Table

from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, err, out
from node.settings import SettingsError, load_settings
from node.stores import open_stores
from storage.recall_records import Recalled, RecallRecord, RecallScope

SAFETY: Final = "113037"
QUALITY: Final = "113001"
"""Titles of the notes (PS3.16 CID 7010): rejected for patient safety reasons, for quality reasons.
"""
ReasonOption = Annotated[
    str, typer.Option(help="Why; it stands on timelines, and in what destinations are sent.")
]


# long: an option each
def recall(  # noqa: PLR0913 - an option each
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    engine: Annotated[
        str, typer.Option(help="Whose results: NAME, NAME@VERSION or NAME@PACKAGE-DIGEST.")
    ],
    reason: ReasonOption = "",
    study: Annotated[str, typer.Option(help="Of this Study Instance UID only.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Made from then on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Made before then, UTC.")] = None,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality",
            help="Reject for quality reasons (113001); otherwise for patient safety (113037).",
        ),
    ] = False,
    by: Annotated[str, typer.Option(help="Who says so; it stands on timelines.")] = "operator",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print which studies and destinations it hits.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Take back an engine's results: nothing of them is sent any more, and who has them is told.

    A running node makes a rejection note (IHE IOCM) for each study and destination, and sends it.
    """
    with clear_errors():
        name, _, version = engine.partition("@")
        scope = RecallScope(
            engine=name,
            version=version,
            study_instance_uid=study,
            since=_moment(since),
            until=_moment(until),
        )
        if not dry_run and not reason.strip():
            raise SettingsError("--reason: say why; people read it where the result was")
        stores = open_stores(load_settings(config))
        try:
            if dry_run:
                found = stores.recalls.affected(scope)
            else:
                code = QUALITY if quality else SAFETY
                found = stores.recalls.recall(scope, code=code, reason=reason, by=by)
        finally:
            stores.database.close()
        if as_json:
            print(json.dumps(_as_json(found)))  # noqa: T201 - for programs
        else:
            _print(found, dry_run=dry_run)


def recalls(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List what was recalled, newest first, and how many notes are still to be made."""
    with clear_errors():
        stores = open_stores(load_settings(config))
        try:
            records = stores.recalls.list()
        finally:
            stores.database.close()
        table = Table("recall", "time (UTC)", "of", "studies", "results", "to do", "by", "reason")
        for record in records:
            table.add_row(
                str(record.id),
                f"{record.at:%Y-%m-%d %H:%M:%S}",
                scope_text(record),
                str(record.studies),
                str(record.results),
                str(record.waiting),
                record.by,
                record.reason,
            )
        out.print(table)


def scope_text(record: RecallRecord) -> str:
    """Say in a line which results a recall was about."""
    scope = record.scope
    parts = [f"{scope.engine}@{scope.version}" if scope.version else scope.engine]
    if scope.study_instance_uid:
        parts.append(f"study {scope.study_instance_uid}")
    if scope.since is not None:
        parts.append(f"from {scope.since:%Y-%m-%d %H:%M}Z")
    if scope.until is not None:
        parts.append(f"before {scope.until:%Y-%m-%d %H:%M}Z")
    return ", ".join(parts)


def _moment(given: datetime | None) -> datetime | None:
    if given is None or given.tzinfo is not None:
        return given
    return given.replace(tzinfo=UTC)


def _print(found: Recalled, *, dry_run: bool) -> None:
    if found.studies:
        table = Table(Column("study", no_wrap=True, min_width=64), "results", "unsent", "told")
        for item in found.studies:
            told = ", ".join(item.destinations) or "nobody has any"
            table.add_row(item.study_instance_uid, str(item.results), str(item.waiting), told)
        out.print(table)
    counts = _counts(found)
    if dry_run:
        out.print(f"would be recalled: {counts}", markup=False)
    elif found.recall_id is None:
        out.print("nothing to recall: no such result, or all are recalled already", markup=False)
    else:
        out.print(f"recall {found.recall_id}: {counts}; a running node sends them", markup=False)
        out.print(
            "the engine still takes jobs: take it out of the rules until it is mended, then "
            "wetread replay each study",
            markup=False,
        )
    _print_left(found)


def _counts(found: Recalled) -> str:
    """Say in a line how much it is."""
    results = sum(item.results for item in found.studies)
    notes = sum(len(item.destinations) for item in found.studies)
    runs = f", {found.running} running jobs" if found.running else ""
    return f"{results} results of {len(found.studies)} studies{runs}, {notes} notes"


def _print_left(found: Recalled) -> None:
    """Say what a recall is not about, although somebody may think so."""
    if found.running:
        out.print(
            f"{found.running} jobs of the engine run just now: what they make is taken back as "
            "they end, if the version is the one that is meant",
            markup=False,
        )
    if found.queued:
        err.print(
            f"left: {found.queued} jobs of the engine wait; they run, and are sent, with the "
            "version that is installed by then",
            markup=False,
        )
    if found.unversioned:
        err.print(
            f"left: {found.unversioned} results of which it is not known which version made them; "
            "name the engine alone, with --until, to recall them too",
            markup=False,
        )


def _as_json(found: Recalled) -> dict[str, object]:
    return {
        "recall": found.recall_id,
        "unversioned": found.unversioned,
        "running_jobs": found.running,
        "queued_jobs": found.queued,
        "studies": [
            {
                "study_instance_uid": item.study_instance_uid,
                "results": item.results,
                "unsent": item.waiting,
                "destinations": list(item.destinations),
            }
            for item in found.studies
        ],
    }
