"""The node's configuration: TOML read once, checked strictly, frozen, handed in."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from node.interfaces import PluginSettings

RawTable: TypeAlias = Mapping[str, object]
SettingsT = TypeVar("SettingsT", bound=BaseModel)


class SettingsError(Exception):
    """The configuration is wrong; the message names the file, the key path, and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(_Section):
    """[node]: who this installation is, and where it keeps its data."""

    name: str = Field(
        "WETREAD", min_length=1, max_length=16, description="Station name in results (SH, 16)."
    )
    serial_number: str = Field(
        "1", min_length=1, max_length=64, description="Device serial number in results (LO, 64)."
    )
    data_dir: Path = Field(
        Path("var"), description="Folder of objects and database; relative to this file."
    )


class DatabaseSettings(_Section):
    """[database]: where the rows are."""

    url: str = Field(
        "sqlite:///{data_dir}/wetread.db",
        description="SQLAlchemy URL: SQLite on one machine, `postgresql+psycopg://` beyond.",
    )
    password_file: Path | None = Field(
        None, description="File with the database password, put into the URL as `{password}`."
    )


class StorageSettings(_Section):
    """[storage]: limits on what is taken in."""

    max_object_mib: PositiveInt = Field(
        4096, description="Largest instance taken, in MiB; a larger one is answered 0xA700."
    )
    reserve_mib: PositiveInt = Field(
        1024,
        description="Free disk, in MiB, kept for studies in flight: below it C-STORE is answered "
        "0xA700 before the write.",
    )


class LoggingSettings(_Section):
    """[logging]: one line an event on standard error; never patient data."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level written."
    )
    format: Literal["console", "json"] = Field(
        "console", description="Text for people, or JSON lines for a collector."
    )


class QuietTime(_Section):
    """[[completion.quiet]]: a quiet time for some senders or modalities."""

    calling_ae: str = Field("", description="Calling AE title this is for; empty: any.")
    modality: str = Field("", description="Modality this is for; empty: any.")
    seconds: PositiveFloat = Field(..., description="Quiet time in seconds.")


class CompletionSettings(_Section):
    """[completion]: when a study is complete."""

    quiet_seconds: PositiveFloat = Field(
        30.0,
        description="Seconds after its last instance until a study is complete; an association "
        "that carries the study holds it open. A rule can ask for longer.",
    )
    sweep_seconds: PositiveFloat = Field(1.0, description="Seconds between two looks.")
    quiet: tuple[QuietTime, ...] = Field(
        (), description="Exceptions; AE and modality together go before either alone."
    )


class RulesSettings(_Section):
    """[rules]: the routing rules."""

    file: Path | None = Field(
        None, description="Rules file, put in force at each start; relative to this file."
    )


class EnginesSettings(_Section):
    """[engines]: the site's own engine packages."""

    folders: tuple[Path, ...] = Field(
        (), description="Folders with engine packages, beside those that ship."
    )


class WorkerSettings(_Section):
    """[worker]: how engines run."""

    processes: PositiveInt = Field(1, description="Jobs at a time, each in its own process.")
    memory_mib: PositiveInt = Field(
        8192, description="Address space of an engine process, in MiB; more is refused to it."
    )
    threads: PositiveInt = Field(2, description="CPU threads of an engine.")
    max_attempts: PositiveInt = Field(3, description="Attempts until a job is dead.")
    lease_seconds: PositiveFloat = Field(
        60.0, description="Seconds without a sign of life until a job is taken from its worker."
    )
    idle_seconds: PositiveFloat = Field(0.5, description="Seconds between two looks for a job.")


class DeliverySettings(_Section):
    """[delivery]: how hard results are sent."""

    batch: PositiveInt = Field(50, description="Most objects in one association.")
    lease_seconds: PositiveFloat = Field(
        300.0, description="Seconds until an unanswered object is taken for unsent."
    )
    idle_seconds: PositiveFloat = Field(0.5, description="Seconds between two looks.")
    retry_first_seconds: PositiveFloat = Field(
        10.0, description="First wait after a failure, in seconds; doubled each time, with jitter."
    )
    retry_max_seconds: PositiveFloat = Field(3600.0, description="Longest wait, in seconds.")
    breaker_failures: PositiveInt = Field(
        3, description="Times in a row a destination is not reached until it is parked."
    )
    breaker_seconds: PositiveFloat = Field(
        30.0, description="First wait until a parked destination is asked again, in seconds."
    )


class AdminSettings(_Section):
    """[admin]: the admin page and JSON API."""

    enabled: bool = Field(True, description="Serve them.")
    host: str = Field("127.0.0.1", description="Loopback address to listen on.")
    port: int = Field(8042, ge=0, le=65535, description="Port; 0 takes a free one.")


class Settings(_Section):
    """The whole file."""

    node: NodeSettings = NodeSettings()
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    logging: LoggingSettings = LoggingSettings()
    listeners: Mapping[str, RawTable] = Field(
        ..., min_length=1, description="One table a way in, by the listener's name."
    )
    destinations: Mapping[str, RawTable] = Field(
        {}, description="One table a destination; `kind` names the way out."
    )
    completion: CompletionSettings = CompletionSettings()
    rules: RulesSettings = RulesSettings()
    engines: EnginesSettings = EnginesSettings()
    worker: WorkerSettings = WorkerSettings()
    delivery: DeliverySettings = DeliverySettings()
    admin: AdminSettings = AdminSettings()

    def database_url(self) -> str:
        """Return the database URL with the data folder and the password put in.

        Raises:
            SettingsError: the password file cannot be read.
        """
        password = ""
        if self.database.password_file is not None:
            try:
                password = self.database.password_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise SettingsError(f"database.password_file: {error}") from error
        url = self.database.url.replace("{data_dir}", str(self.node.data_dir))
        return url.replace("{password}", quote(password, safe=""))


def load_settings(path: Path) -> Settings:
    """Read a configuration file; its relative paths are taken from its own folder.

    Raises:
        SettingsError: naming the file, the key path, and what is wrong.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(f"{path}: {explain(error)}") from error
    return _with_absolute_paths(settings, path.resolve().parent)


def validate_plugin_table(
    raw: RawTable, settings_type: type[PluginSettings], key_path: str
) -> PluginSettings:
    """Check the table of a listener or destination against the plugin's own settings.

    Raises:
        SettingsError: naming the key path.
    """
    try:
        return settings_type.model_validate(dict(raw))
    except ValidationError as error:
        raise SettingsError(explain(error, key_path)) from error


def explain(error: ValidationError, key_path: str = "") -> str:
    """Word a validation error: each wrong key with its path and what is wrong with it."""
    words = []
    for item in error.errors(include_url=False, include_input=False):
        path = key_path
        for part in item["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        words.append(f"{path}: {item['msg']}")
    return "; ".join(words)


def quiet_seconds_for(settings: Settings, modality: str, calling_ae: str) -> float:
    """Return the quiet time of a sender and modality; the most exact exception wins (R1)."""
    best, exactness = settings.completion.quiet_seconds, 0
    for item in settings.completion.quiet:
        if item.calling_ae not in {"", calling_ae} or item.modality not in {"", modality}:
            continue
        exact = 2 * bool(item.calling_ae) + bool(item.modality)
        if exact >= exactness:
            best, exactness = item.seconds, exact
    return best


def _with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    node = settings.node.model_copy(update={"data_dir": folder / settings.node.data_dir})
    engines = settings.engines.model_copy(
        update={"folders": tuple(folder / item for item in settings.engines.folders)}
    )
    updates: dict[str, BaseModel] = {"node": node, "engines": engines}
    if settings.rules.file is not None:
        updates["rules"] = RulesSettings(file=folder / settings.rules.file)
    if settings.database.password_file is not None:
        password_file = folder / settings.database.password_file
        updates["database"] = settings.database.model_copy(update={"password_file": password_file})
    return settings.model_copy(update=updates)
