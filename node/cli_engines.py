"""`wetread engines ...`: list, verify, check, import, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from engines.importing import import_model
from engines.package import load_package
from engines.schema import package_schema
from engines.verify import verify_package
from node.catalogue import Catalogue, read_packages
from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, out
from node.sandbox import Sandbox
from node.settings import load_settings
from node.stores import open_stores, prepare
from node.workshop import engine_folders

engines_app = typer.Typer(help="Engine packages.", no_args_is_help=True)


@engines_app.command("list")
def engines_list(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the engine packages that a start would find."""
    with clear_errors():
        table = Table("engine", "version", "task", "runtime", "digest", "intended use")
        for item in read_packages(engine_folders(load_settings(config))):
            package = item.package
            table.add_row(
                package.name,
                package.version,
                package.task,
                package.runtime,
                package.digest[:12],
                package.intended_use,
            )
        out.print(table)


@engines_app.command("verify")
def engines_verify(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the golden case of every engine package on this machine."""
    with clear_errors():
        settings = load_settings(config)
        prepare(settings)
        stores = open_stores(settings)
        sandbox = Sandbox(memory_mib=settings.worker.memory_mib)
        catalogue = Catalogue(
            folders=engine_folders(settings),
            store=stores.engines,
            sandbox=sandbox,
            threads=settings.worker.threads,
        )
        try:
            catalogue.load()
            catalogue.verify()
        finally:
            catalogue.close()
        failed = 0
        for record in stores.engines.list():
            good = catalogue.active(record.name) is not None
            failed += not good
            out.print(f"{record.name} {record.version}: {record.state.value} {record.reason}")
        if failed:
            raise typer.Exit(1)


@engines_app.command("check")
def engines_check(
    folders: Annotated[list[Path], typer.Argument(help="Folders of engine packages.")],
    run: Annotated[bool, typer.Option("--run", help="Run the golden cases too.")] = False,
) -> None:
    """Read packages as a start would: every key, every file, every digest. Needs no node."""
    failed = 0
    with clear_errors():
        for folder in folders:
            package = load_package(folder)
            line = f"{package.name} {package.version}: sound, package SHA-256 {package.digest}"
            if run:
                verdict = verify_package(package)
                failed += not verdict.passed
                line += f"; golden case {verdict.reason or 'passed'} ({verdict.seconds:.1f} s)"
            out.print(line, markup=False)
    if failed:
        raise typer.Exit(1)


@engines_app.command("import")
def engines_import(
    model: Annotated[Path, typer.Argument(help="The model: an ONNX file that holds its weights.")],
    answers: Annotated[
        Path,
        typer.Option(help="engine.toml without [files]; see config/engines and `engines schema`."),
    ],
    to: Annotated[Path, typer.Option(help="Folder of the package, which must not exist yet.")],
) -> None:
    """Make an engine package of a model and the answers that no model file holds."""
    with clear_errors():
        package = import_model(model, answers, to)
        out.print(
            f"{package.name} {package.version}: {to}, package SHA-256 {package.digest}. Its golden"
            " case is a phantom. To use it, put its folder under [engines] folders and name it in"
            " a rule.",
            markup=False,
            soft_wrap=True,
        )


@engines_app.command("schema")
def engines_schema() -> None:
    """Print the JSON Schema of engine.toml, for editors and for those who write one."""
    typer.echo(json.dumps(package_schema(), indent=2))
