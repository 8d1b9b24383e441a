"""The command line. Wrong usage or configuration ends with status 2 and says what is wrong."""

from __future__ import annotations

import gc
import json
import os
import signal
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Column, Table

from node import app as composition
from node.catalogue import read_packages
from node.cli_destinations import destinations_app
from node.cli_engines import engines_app
from node.cli_export import export
from node.cli_recalls import recall, recalls
from node.cli_results import results_app
from node.cli_retention import hold, holds, release, retention
from node.cli_rules import rules_app
from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, err, open_settings, out
from node.delivery.dimse import DimseTarget, DimseTargetSettings
from node.demo import Demo, DemoOptions
from node.doors import build_profiles, build_targets, check_dicomweb, check_listeners
from node.interfaces import SendVerdict, Sent
from node.log import configure_logging
from node.pacs import StandInPacs
from node.planning import read_rules
from node.settings import SettingsError, load_settings
from node.stores import move_schema, open_stores
from node.workshop import engine_folders, make_catalogue, make_pool

LONGEST_SEND_SECONDS: Final = 86400.0

app = typer.Typer(
    name="wetread",
    help="The AI node beside a hospital's PACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(rules_app, name="rules")
app.add_typer(engines_app, name="engines")
app.add_typer(destinations_app, name="destinations")
app.add_typer(results_app, name="results")
app.command()(export)
app.command("retention")(retention)
app.command()(hold)
app.command()(release)
app.command()(holds)
app.command()(recall)
app.command()(recalls)


def main() -> None:
    """Run the command line."""
    app()


def _signals() -> int:
    """Let signals that ask for an end be read from a pipe, from now on; return where.

    A handler that sets an Event would wait for ever if it came while the same thread, about to wait
    for it, held the Event's lock.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return read_end


def _wait_for(signals: int) -> None:
    os.read(signals, 1)


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the node in the foreground until it is told to stop."""
    with clear_errors():
        signals = _signals()
        node = composition.Node(open_settings(config))
        node.start()
        gc.freeze()  # what a start leaves stays: no collection need look at it again
        for listener in node.listeners:
            err.print(f"listening: {listener.address()}", markup=False)
        if node.admin is not None:
            err.print(f"admin page: http://127.0.0.1:{node.admin.port}/", markup=False)
        try:
            _wait_for(signals)
        finally:
            node.stop()


@app.command()
def worker(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run engine workers only, beside nodes that share a PostgreSQL database."""
    with clear_errors():
        settings = open_settings(config)
        if settings.database_url().startswith("sqlite"):
            raise SettingsError(
                "database.url: a separate worker needs PostgreSQL; on SQLite the node's own "
                "workers are the only ones that may write"
            )
        signals = _signals()
        stores = open_stores(settings)
        catalogue = make_catalogue(settings, stores)
        catalogue.load()
        pool = make_pool(settings, stores, catalogue)
        pool.start()
        try:
            _wait_for(signals)
        finally:
            pool.stop()


@app.command()
def demo(
    *,
    folder: Annotated[
        Path | None, typer.Option("--input", help="Send this folder of DICOM files instead.")
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(help="Run this engine package instead, on every series; with all pictures."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the node's data here instead of a temporary folder.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where pictures and results are written.")] = Path(
        "demo-output"
    ),
    keep: Annotated[
        bool, typer.Option(help="Keep the node and its admin page up until Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Run a complete node and a stand-in PACS, and send real studies through them."""
    with clear_errors():
        configure_logging(level="error", style="console")
        options = DemoOptions(folder=folder, engine=engine, data_dir=data_dir, output=output)
        with Demo(options, err if as_json else out) as session:
            report = session.run()
            if as_json:
                print(json.dumps(report.as_json()))  # noqa: T201 - the last line is for programs
            if keep:
                err.print(f"admin page: {session.admin_address()}   (Ctrl-C ends)", markup=False)
                _wait_for(_signals())
        if not report.succeeded:
            raise typer.Exit(1)


@app.command()
def pacs(
    folder: Annotated[Path, typer.Argument(help="Where received objects are kept.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 11113,
    ae_title: Annotated[str, typer.Option(help="Its AE title.")] = "STANDIN",
) -> None:
    """Run a stand-in PACS that keeps what it is sent, for acceptance tests at a new site."""
    with clear_errors():
        configure_logging(level="info", style="console")
        standin = StandInPacs(folder, ae_title=ae_title, host=host, port=port)
        standin.start()
        err.print(f"stand-in PACS: {standin.address()}   files: {folder}", markup=False)
        try:
            _wait_for(_signals())
        finally:
            standin.stop()
        for study in standin.listing():
            out.print(f"{study.study_instance_uid}: {study.count} instances", markup=False)


@app.command()
def send(
    folder: Annotated[Path, typer.Argument(exists=True, help="A DICOM file or a folder of them.")],
    *,
    host: Annotated[str, typer.Option(help="The peer's address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The peer's port.")] = 11112,
    ae_title: Annotated[str, typer.Option("--called", help="Called AE title.")] = "WETREAD",
    calling: Annotated[str, typer.Option(help="Calling AE title.")] = "WETREAD-SEND",
) -> None:
    """Send DICOM files by C-STORE, as they are, over one association."""
    from node.demo_data import dicom_files

    with clear_errors():
        target = DimseTarget(
            DimseTargetSettings(
                host=host,
                port=port,
                ae_title=ae_title,
                calling_ae_title=calling,
                total_seconds=LONGEST_SEND_SECONDS,
            )
        )
        found = dicom_files(folder)
        files = found.files
        for reason, count in found.passed_over.items():
            err.print(f"passed over {count}: {reason}", markup=False)
        if not files:
            raise SettingsError(f"{folder}: holds no DICOM file")
        answers: list[Sent] = []
        target.send(files, lambda _, sent: answers.append(sent))
    good = sum(item.verdict in {SendVerdict.ACCEPTED, SendVerdict.WARNED} for item in answers)
    out.print(f"{good} of {len(files)} objects accepted by {target.address()}", markup=False)
    for message in sorted({item.message for item in answers if item.message}):
        err.print(message, markup=False)
    if good < len(files):
        raise typer.Exit(1)


@app.command("check-config")
def check_config(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read configuration, rules, engines and destinations as a start would; change nothing."""
    with clear_errors():
        settings = load_settings(config)
        targets, profiles = build_targets(settings), build_profiles(settings)
        doors = check_listeners(settings)
        check_dicomweb(settings)
        engines = read_packages(engine_folders(settings))
        if settings.rules.file is not None:
            read_rules(
                settings.rules.file,
                engines=frozenset(item.package.name for item in engines),
                destinations=frozenset(targets),
            )
        out.print(f"{config}: good", markup=False)
        for kind, _ in doors:
            out.print(f"  listener     {kind.name}", markup=False)
        for name, target in targets.items():
            profile = profiles.of(name).name
            out.print(f"  destination  {name}: {target.address()}, profile {profile}", markup=False)
        for name, objects in profiles.not_installed().items():
            out.print(f"  profile      {name}: not made here: {', '.join(objects)}", markup=False)
        for item in engines:
            out.print(f"  engine       {item.package.name} {item.package.version}", markup=False)


@app.command("migrate")
def migrate_command(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    revision: Annotated[str, typer.Option(help="Schema revision to go to.")] = "head",
    down: Annotated[bool, typer.Option("--down", help="Go back to REVISION.")] = False,
) -> None:
    """Bring the database schema to this version, or back to an older one."""
    with clear_errors():
        move_schema(load_settings(config), revision, down=down)
        out.print(f"schema: {revision}", markup=False)


@app.command()
def studies(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 30,
    text: Annotated[str, typer.Option(help="Part of an accession number, UID, ...")] = "",
) -> None:
    """List studies with their state."""
    with clear_errors():
        stores = open_stores(load_settings(config))
        table = Table(
            Column("study", no_wrap=True, min_width=64),
            *("modalities", "instances", "revision", "state", "received", "reason"),
        )
        for study in stores.studies.list(limit=limit, text=text):
            table.add_row(
                study.study_instance_uid,
                " ".join(study.modalities),
                str(study.instances),
                str(study.revision),
                study.state.value,
                f"{study.last_received_at:%Y-%m-%d %H:%M:%S}Z",
                study.reason,
            )
        out.print(table)


@app.command()
def timeline(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show everything that happened to one study."""
    with clear_errors():
        stores = open_stores(load_settings(config))
        record = stores.studies.get(study)
        table = Table("time (UTC)", "event", "job", "delivery", "by", "details")
        for event in stores.events.timeline(record.id):
            table.add_row(
                f"{event.at:%Y-%m-%d %H:%M:%S.%f}"[:-3],
                event.action,
                "" if event.job_id is None else str(event.job_id),
                "" if event.delivery_id is None else str(event.delivery_id),
                event.actor,
                json.dumps(event.details) if event.details else "",
            )
        out.print(table)


@app.command()
def complete(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    by: Annotated[str, typer.Option(help="Who says so; it stands on the timeline.")] = "operator",
) -> None:
    """Take a study that is still receiving for complete now, whatever its quiet time."""
    with clear_errors():
        stores = open_stores(load_settings(config))
        record = stores.studies.complete_now(study, by=by)
        out.print(f"revision {record.revision}: {record.state.value}", markup=False)


@app.command()
def replay(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: Annotated[str, typer.Option(help="Why; it stands on the timeline.")] = "replay",
) -> None:
    """Route and read a study again, as a new revision that supersedes the old results."""
    with clear_errors():
        stores = open_stores(load_settings(config))
        record = stores.studies.reopen(study, reason=reason, by="command line")
        out.print(f"revision {record.revision} opened; a running node takes it up", markup=False)
