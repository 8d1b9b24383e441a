"""`wetread engines ...`: list, verify."""

from __future__ import annotations

import typer
from rich.table import Table

from node import app as composition
from node.catalogue import Catalogue, read_packages
from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, out
from node.sandbox import Sandbox
from node.settings import load_settings
from node.stores import open_stores, prepare

engines_app = typer.Typer(help="Engine packages.", no_args_is_help=True)


@engines_app.command("list")
def engines_list(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the engine packages that a start would find."""
    with clear_errors():
        table = Table("engine", "version", "task", "runtime", "digest", "intended use")
        for item in read_packages(composition.engine_folders(load_settings(config))):
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
            folders=composition.engine_folders(settings),
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
