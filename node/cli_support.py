"""What every command shares: the configuration option, the console, and errors told clearly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engines.package import PackageError
from node.admin.app import AdminServerError
from node.catalogue import CatalogueError
from node.demo import DemoError
from node.dicomweb.app import DicomwebError
from node.interfaces import ListenerError
from node.log import configure_logging
from node.planning import NoRulesError
from node.plugins import PluginError
from node.result_profiles import ProfileError
from node.routing import RulesError
from node.settings import Settings, SettingsError, load_settings
from storage.records import BytesDeletedError, NotFoundError, SchemaError, StorageError
from storage.states import TransitionError

USAGE_ERROR = 2
ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="WETREAD_CONFIG", help="The node's TOML configuration."),
]
DEFAULT_CONFIG = Path("config/wetread.toml")

WIDE = 150  # columns, where no terminal says how many it has


def _console(*, stderr: bool) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else WIDE)


out = _console(stderr=False)
err = _console(stderr=True)


def _tell(text: str) -> None:
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what an admin can mend into one line and status 2; anything else keeps its traceback."""
    try:
        yield
    except (
        AdminServerError,
        BytesDeletedError,
        CatalogueError,
        DemoError,
        DicomwebError,
        ListenerError,
        NoRulesError,
        NotFoundError,
        PackageError,
        PluginError,
        ProfileError,
        RulesError,
        SchemaError,
        SettingsError,
        TransitionError,
        OSError,
    ) as error:
        _tell(f"wetread: {error}")
        raise typer.Exit(USAGE_ERROR) from error
    except StorageError as error:
        err.print(
            f"wetread: storage: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


def open_settings(config: Path) -> Settings:
    """Read the configuration and set logging up as it says."""
    settings = load_settings(config)
    configure_logging(level=settings.logging.level, style=settings.logging.format)
    return settings
