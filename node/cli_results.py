"""`wetread results ...`: what engines themselves did not believe waits here for a person."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from pydicom.uid import SecondaryCaptureImageStorage
from rich.table import Column, Table

from node.app import HEADER_MEMORY_MIB
from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, err, out
from node.doors import build_profiles
from node.result_profiles import FindingKind
from node.sandbox import Deadlines, Sandbox, SandboxError
from node.settings import Settings, SettingsError, load_settings
from node.stores import Stores, open_stores
from storage.records import NewDelivery, ResultRecord
from storage.reviews import ReviewRecord

PATIENCE: Final = Deadlines(soft=30.0, hard=60.0)

results_app = typer.Typer(
    help="Results that were held back until a person has seen them.", no_args_is_help=True
)
ReviewArgument = Annotated[int, typer.Argument(help="Number of the review, as `held` lists it.")]
ByOption = Annotated[str, typer.Option(help="Who decides; it stands on the timeline.")]
CommentOption = Annotated[
    str, typer.Option(help="Why, without patient data; it stands on the timeline.")
]


@results_app.command("held")
def held(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    every: Annotated[bool, typer.Option("--all", help="Those decided too, newest first.")] = False,
    limit: Annotated[int, typer.Option(help="How many are listed.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what waits for a person, longest first: why it is held, and of which study it is."""
    with clear_errors(), _stores(load_settings(config)) as stores:
        found = stores.reviews.list(waiting=not every, limit=limit)
        if as_json:
            print(json.dumps([asdict(item) for item in found], default=str))  # noqa: T201 - output for programs
            return
        table = Table(
            "review", "since (UTC)", "engine", Column("study", no_wrap=True, min_width=44), "why"
        )
        if every:
            table.add_column("decision")
        for item in found:
            decision = [f"{item.state.value} {item.decided_by}"] if every else []
            table.add_row(
                str(item.id),
                f"{item.created_at:%Y-%m-%d %H:%M}",
                item.engine,
                item.study_instance_uid,
                item.reason,
                *decision,
            )
        out.print(table)


@results_app.command("show")
def show(
    review: ReviewArgument,
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if need be.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write what is held: the DICOM objects, and as PNG the pictures with their outlines."""
    with clear_errors():
        settings = load_settings(config)
        with _stores(settings) as stores:
            found = stores.reviews.get(review)
            results = stores.reviews.results(review)
            _say(found)
            sandbox = Sandbox(memory_mib=HEADER_MEMORY_MIB)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for number, result in enumerate(results, 1):
                    _write(stores, result, folder / f"{number:03}-{result.writer}", sandbox)
            except OSError as error:
                raise SettingsError(f"{folder}: {error.strerror or error}") from error
            finally:
                sandbox.close()
        out.print(f"{len(results)} objects in {folder}", markup=False, soft_wrap=True)


@results_app.command("release")
def release(
    review: ReviewArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    by: ByOption,
    comment: CommentOption = "",
) -> None:
    """Send what is held to the destinations of its job, as their profiles say."""
    with clear_errors():
        settings = load_settings(config)
        profiles = build_profiles(settings)

        def plan(found: ReviewRecord, results: Sequence[ResultRecord]) -> Sequence[NewDelivery]:
            made = [item.writer for item in results]
            return profiles.deliveries(FindingKind(found.kind), found.destinations, made)

        with _stores(settings) as stores:
            sent = stores.reviews.release(review, by=by, comment=comment, plan=plan)
        out.print(f"released: {len(sent)} deliveries", markup=False)
        if not sent:
            err.print("its job has no destination that takes any of it", markup=False)


@results_app.command("discard")
def discard(
    review: ReviewArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    by: ByOption,
    comment: CommentOption = "",
) -> None:
    """Keep what is held from everybody for good; that the study was not analysed stands."""
    with clear_errors(), _stores(load_settings(config)) as stores:
        stores.reviews.discard(review, by=by, comment=comment)
        out.print("discarded", markup=False)


@contextmanager
def _stores(settings: Settings) -> Iterator[Stores]:
    stores = open_stores(settings)
    try:
        yield stores
    finally:
        stores.database.close()


def _say(found: ReviewRecord) -> None:
    lines = {
        "review": f"{found.id}, {found.state.value}",
        "why": found.reason,
        "engine": f"{found.engine}, job {found.job_id}",
        "study": found.study_instance_uid,
        "destinations": ", ".join(found.destinations) or "none",
    }
    for name, text in lines.items():
        out.print(f"{name:13}{text}", markup=False, highlight=False, soft_wrap=True)


def _write(stores: Stores, result: ResultRecord, path: Path, sandbox: Sandbox) -> None:
    """Write one object, and its picture where it is a capture; nothing is overwritten."""
    if result.deletion_id is not None:
        err.print(f"{path.name}: retention deleted it", markup=False)
        return
    kept = stores.objects.path(result.digest)
    with path.with_suffix(".dcm").open("xb") as file:
        file.write(kept.read_bytes())
    if result.sop_class_uid != SecondaryCaptureImageStorage:
        return
    try:
        answer = sandbox.call("picture", {"file": {"path": str(kept)}}, deadlines=PATIENCE)
    except SandboxError as error:
        err.print(f"{path.name}: no picture: {error}", markup=False)
        return
    with path.with_suffix(".png").open("xb") as file:
        file.write(base64.b64decode(str(answer["content"])))
