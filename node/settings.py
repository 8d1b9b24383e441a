"""The node's configuration: TOML read once, checked strictly, frozen, handed in."""

# long: every key of the file, with what it means

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import quote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from engines.manifest import read_rung
from node.interfaces import PluginSettings
from node.strict_toml import TableError, check_table, read_toml

RawTable: TypeAlias = Mapping[str, object]
DestinationName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

PASSWORD: Final = "{password}"  # noqa: S105 - a place for it, not one
OPEN_PASSWORD: Final = re.compile(r"[^:]+://[^/@]*:(?!\{password\}@)[^/]*@|.*[?&]password=")


class SettingsError(Exception):
    """The configuration is wrong; the message names the file, the key path, and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NodeSettings(_Section):
    """[node]: who this installation is, and where it keeps its data."""

    name: str = Field(
        "WETREAD",
        min_length=1,
        max_length=16,
        description="Station name in results (SH, 16); each node that shares a database has its "
        "own.",
    )
    serial_number: str = Field(
        "1", min_length=1, max_length=64, description="Device serial number in results (LO, 64)."
    )
    data_dir: Path = Field(
        Path("var"),
        description="Folder of objects and database; a relative path starts at this file's folder.",
    )

    @field_validator("name", "serial_number")
    @classmethod
    def _dicom_text(cls, text: str) -> str:
        if not text.isprintable() or "\\" in text or text != text.strip():
            raise ValueError("must be printable, without backslash, not framed by blanks")
        return text


class DatabaseSettings(_Section):
    """[database]: where the rows are."""

    url: str = Field(
        "sqlite:///{data_dir}/wetread.db",
        description="SQLAlchemy URL: SQLite on one machine, `postgresql+psycopg://` beyond. "
        "`{data_dir}` and `{password}` are put in.",
    )
    password_file: Path | None = Field(
        None, description="File with the database password; the URL takes it as `{password}`."
    )

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str) -> str:
        if OPEN_PASSWORD.match(url):
            raise ValueError("the password belongs in password_file; write {password} for it here")
        return url

    @model_validator(mode="after")
    def _password_has_a_place(self) -> DatabaseSettings:
        if (PASSWORD in self.url) != (self.password_file is not None):
            raise ValueError("{password} in url and password_file go together")
        return self


class StorageSettings(_Section):
    """[storage]: limits on what is taken in."""

    max_object_mib: PositiveInt = Field(
        4096, description="Largest instance taken, in MiB; a larger one is answered 0xA700."
    )
    reserve_mib: PositiveInt = Field(
        1024,
        description="Free disk, in MiB, kept for studies in flight: below it C-STORE is answered "
        "0xA700 before the write, and associations that would store are rejected as congested.",
    )
    resume_mib: NonNegativeInt = Field(
        2048,
        description="Free disk, in MiB, at which C-STORE is taken again after it was refused; at "
        "least `reserve_mib` is used.",
    )
    urgent_mib: NonNegativeInt = Field(
        0,
        description="Free disk, in MiB, below which only senders marked `urgent` are taken from; "
        "at least `reserve_mib` is used, so 0 keeps nothing for them.",
    )
    quota_mib: NonNegativeInt = Field(
        0,
        description="MiB of studies not read yet that one calling AE title may have here; more is "
        "answered 0xA700 until some are read. Senders marked `urgent` have no quota. 0: no limit.",
    )
    durability: Literal["sync", "behind"] = Field(
        "sync",
        description="`sync`: an instance is acknowledged when it is on the disk. `behind`: when "
        "the operating system has it; a power cut or a crash of the machine then loses up to "
        "`behind_mib` of acknowledged instances (a crash of the node alone loses none), and a "
        "study is complete only when all of it is on the disk.",
    )
    behind_mib: PositiveInt = Field(
        256,
        description="With `behind`: MiB that may wait for the disk; then senders wait.",
    )
    pack_mib: PositiveInt = Field(
        64, description="Size of the files that received instances are kept in, in MiB."
    )
    spare_packs: NonNegativeInt = Field(
        4,
        description="With `sync`: such files written in advance, which makes a sync several times "
        "as fast; as many as senders at a time is a good number.",
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
    seconds: PositiveFloat = Field(description="Quiet time in seconds.")

    @model_validator(mode="after")
    def _is_an_exception(self) -> QuietTime:
        if not (self.calling_ae or self.modality):
            raise ValueError("give calling_ae, modality or both; for all, set quiet_seconds")
        return self


class QuerySettings(_Section):
    """[completion.query]: an archive that is asked by C-FIND how many instances a study has."""

    host: str = Field(min_length=1, description="Its address.")
    port: int = Field(104, ge=1, le=65535, description="Its port.")
    ae_title: str = Field(min_length=1, max_length=16, description="Its (called) AE title.")
    calling_ae_title: str = Field(
        "WETREAD", min_length=1, max_length=16, description="Our AE title towards it."
    )
    every_seconds: PositiveFloat = Field(
        5.0,
        description="Seconds between two questions about a study. A count that is given twice, "
        "and is what was received, completes a study before its quiet time is over.",
    )
    ignore_modalities: tuple[str, ...] = Field(
        (), description="Series of these modalities are never sent here, and are not counted."
    )
    connect_seconds: PositiveFloat = Field(5.0, description="Time to connect, in seconds.")
    acse_seconds: PositiveFloat = Field(10.0, description="Time to negotiate, in seconds.")
    dimse_seconds: PositiveFloat = Field(
        10.0, description="Time to answer about one study, in seconds."
    )


class CompletionSettings(_Section):
    """[completion]: when a study is complete."""

    quiet_seconds: PositiveFloat = Field(
        30.0,
        description="Seconds after its last instance until a study is complete; an association "
        "that carries the study holds it open. A rule can ask for longer.",
    )
    sweep_seconds: PositiveFloat = Field(
        0.25, description="Seconds between two looks; one more comes when a study falls quiet."
    )
    wait_seconds: NonNegativeFloat = Field(
        60.0,
        description="Seconds after its quiet time that a study is waited for while instances are "
        "known to be missing; then it is completed with the verdict `known missing`.",
    )
    procedure_step_seconds: NonNegativeFloat = Field(
        900.0,
        description="Seconds after its last instance that a procedure step in progress (MPPS) "
        "holds a study open.",
    )
    quiet: tuple[QuietTime, ...] = Field(
        (),
        description="Exceptions: AE title and modality go before AE title, that before modality.",
    )
    query: QuerySettings | None = Field(
        None, description="An archive that is asked by C-FIND how many instances a study has."
    )


class RulesSettings(_Section):
    """[rules]: the routing rules."""

    file: Path | None = Field(
        None,
        description="Rules file, put in force at each start; relative to this file's folder.",
    )


class EnginesSettings(_Section):
    """[engines]: the site's own engine packages."""

    folders: tuple[Path, ...] = Field(
        (),
        description="Folders with engine packages, beside those that ship; relative to this "
        "file's folder.",
    )
    ladder: tuple[str, ...] = Field(
        (),
        description="Ways to run models, best first, for engines whose package has no ladder: "
        "runtime, device, precision, such as `tensorrt cuda float16` or `openvino`. The first that "
        "is here, and agrees with ONNX Runtime on the golden case, is used; the last one is always "
        "the runtime of the package.",
    )

    shadow: tuple[str, ...] = Field(
        (),
        description="Names of engines on trial: their jobs run, what they find is kept and shown "
        "on the admin page, and nothing of it is sent. A job is on trial if its engine was when it "
        "ran.",
    )

    @field_validator("ladder")
    @classmethod
    def _is_readable(cls, ladder: tuple[str, ...]) -> tuple[str, ...]:
        for text in ladder:
            read_rung(text)
        return ladder


class ProfilesSettings(_Section):
    """[profiles]: the site's own result profiles."""

    folders: tuple[Path, ...] = Field(
        (),
        description="Folders with result profiles, beside those that ship; relative to this file's "
        "folder. `wetread destinations profiles` lists all there are.",
    )


class WorkerSettings(_Section):
    """[worker]: how engines run."""

    processes: PositiveInt = Field(1, description="Jobs at a time, each in its own process.")
    memory_mib: PositiveInt = Field(
        8192, description="Address space of an engine process, in MiB; more is refused to it."
    )
    threads: PositiveInt = Field(2, description="CPU threads of an engine.")
    max_attempts: PositiveInt = Field(3, description="Attempts until a job is dead.")
    quarantine_studies: PositiveInt = Field(
        3,
        description="Studies in a row that an engine fails on until it rests: its jobs wait then.",
    )
    quarantine_seconds: PositiveFloat = Field(
        600.0,
        description="Rest of such an engine, in seconds, until its golden case is run again; "
        "passed, it takes jobs.",
    )
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
    fallback_attempts: PositiveInt = Field(
        3,
        description="Attempts, the last of them without an answer (the association was aborted, or "
        "time ran out, with the object on its way), after which the next object of its profile's "
        "set is sent too. It goes on being tried.",
    )


class AlertsSettings(_Section):
    """[alerts]: from when on something that has not ended is told, once, in log and timeline."""

    study_seconds: PositiveFloat = Field(
        900.0, description="Seconds after its quiet time that a study may wait to be routed."
    )
    job_seconds: PositiveFloat = Field(
        7200.0, description="Seconds after its creation that a job may be queued or running."
    )
    delivery_seconds: PositiveFloat = Field(
        3600.0,
        description="Seconds after its creation that a delivery may be on its way, or a rejection "
        "note still to be made; one that is refused is told at once.",
    )
    review_seconds: PositiveFloat = Field(
        14400.0, description="Seconds that a result that was held back may wait for a person."
    )
    sweep_seconds: PositiveFloat = Field(30.0, description="Seconds between two looks.")


Days: TypeAlias = PositiveFloat | None


class RetentionSettings(_Section):
    """[retention]: what is deleted, and when; as it stands, nothing ever is.

    A full disk then stops C-STORE (0xA700). Rows and timelines stay for good, and say what was
    deleted, when and by which key.
    """

    studies_days: Days = Field(
        None,
        description="Days that received instances of a study are kept once it is done: every job "
        "ended, and every result was taken by its destination or superseded. Not given: for ever.",
    )
    failed_days: Days = Field(
        None,
        description="The same for studies that a person could still set going again: with a "
        "failed or dead job, a refused delivery, or that could not be routed; for their results, "
        "for results that go nowhere, and for what was acknowledged but could not be indexed. Not "
        "given: for ever.",
    )
    results_days: Days = Field(
        None,
        description="Days that result objects are kept after every destination took them. Not "
        "given: for ever.",
    )
    quarantine_days: Days = Field(
        None,
        description="Days that bytes are kept that were refused and put into quarantine. Not "
        "given: for ever.",
    )
    duplicates_days: Days = Field(
        None,
        description="Days that bytes are kept that nothing refers to: what came twice, and our "
        "own results sent back. Not given: as long as anything beside them in their file.",
    )
    disk_low_mib: NonNegativeInt = Field(
        0,
        description="Free disk, in MiB, below which studies that are done go early, the oldest "
        "first, whatever `studies_days` says; more than `storage.reserve_mib`. 0: none goes early.",
    )
    disk_high_mib: NonNegativeInt = Field(
        0, description="Free disk, in MiB, at which that ends; at least `storage.resume_mib`."
    )
    sweep_seconds: PositiveFloat = Field(
        600.0, description="Seconds between two looks; at a disk that runs short, at most 30."
    )


class AdminSettings(_Section):
    """[admin]: the admin page and JSON API."""

    enabled: bool = Field(True, description="Serve them.")
    host: Literal["127.0.0.1", "::1", "localhost"] = Field(
        "127.0.0.1", description="Address to listen on; loopback only, as there is no log-in."
    )
    port: int = Field(8042, ge=0, le=65535, description="Port; 0 takes a free one.")


class Settings(_Section):
    """The whole file."""

    node: NodeSettings = NodeSettings()
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    logging: LoggingSettings = LoggingSettings()
    listeners: Mapping[str, RawTable] = Field(
        {},
        validate_default=True,
        description="One table a way in, by the listener's name; at least one.",
    )
    destinations: Mapping[DestinationName, RawTable] = Field(
        {},
        description="One table a destination; `kind` names the way out, `profile` the result "
        "profile: which objects it gets (`standard`, where none is named). `reject_superseded = "
        "true`: it is sent a rejection note (IHE IOCM, 113001) of results that a newer revision of "
        "their study replaced, once it has those; for archives that honour such notes.",
    )
    completion: CompletionSettings = CompletionSettings()
    rules: RulesSettings = RulesSettings()
    engines: EnginesSettings = EnginesSettings()
    profiles: ProfilesSettings = ProfilesSettings()
    worker: WorkerSettings = WorkerSettings()
    delivery: DeliverySettings = DeliverySettings()
    alerts: AlertsSettings = AlertsSettings()
    retention: RetentionSettings = RetentionSettings()
    admin: AdminSettings = AdminSettings()
    dicomweb: RawTable | None = Field(
        None, description="What this node holds, for viewers (QIDO-RS, WADO-RS); without it: not."
    )

    @field_validator("listeners")
    @classmethod
    def _has_a_way_in(cls, tables: Mapping[str, RawTable]) -> Mapping[str, RawTable]:
        if not tables:
            raise ValueError("at least one way in is needed, such as [listeners.dimse]")
        return tables

    @model_validator(mode="after")
    def _early_deletion_comes_before_refusal(self) -> Settings:
        low, high = self.retention.disk_low_mib, self.retention.disk_high_mib
        reserve = self.storage.reserve_mib
        if low and low <= reserve:
            raise ValueError("retention.disk_low_mib: must be more than storage.reserve_mib")
        if low and high < max(low, self.storage.resume_mib):
            raise ValueError(
                "retention.disk_high_mib: must be at least disk_low_mib and storage.resume_mib"
            )
        return self

    def database_url(self) -> str:
        """Return the database URL with the data folder and the password put in.

        Raises:
            SettingsError: the password file cannot be read, or is empty.
        """
        parts = self.database.url.split(PASSWORD)
        with_folder = [part.replace("{data_dir}", str(self.node.data_dir)) for part in parts]
        return quote(self._password(), safe="").join(with_folder)

    def _password(self) -> str:
        path = self.database.password_file
        if path is None:
            return ""
        try:
            password = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"database.password_file: {path}: {error}") from error
        if not password:
            raise SettingsError(f"database.password_file: {path}: is empty")
        return password


def load_settings(path: Path) -> Settings:
    """Read a configuration file; its relative paths are taken from its own folder.

    Raises:
        SettingsError: naming the file, the key path, and what is wrong.
    """
    try:
        raw = read_toml(path.read_text(encoding="utf-8"))
        settings = check_table(raw, Settings)
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError, TableError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return _with_absolute_paths(settings, path.resolve().parent)


def validate_plugin_table(
    raw: RawTable, settings_type: type[PluginSettings], key_path: str
) -> PluginSettings:
    """Check the table of a listener or destination against the plugin's own settings.

    Its paths must be absolute: a service is started in whatever folder.

    Raises:
        SettingsError: naming the key path.
    """
    try:
        settings = check_table(raw, settings_type, key_path)
    except TableError as error:
        raise SettingsError(str(error)) from error
    for name, value in settings:
        if isinstance(value, Path) and not value.is_absolute():
            raise SettingsError(f"{key_path}.{name}: {value}: must be an absolute path")
    return settings


def quiet_seconds_for(settings: Settings, modality: str, calling_ae: str) -> float:
    """Return the quiet time of a sender and modality; the most exact exception wins (R1).

    An AE title is more exact than a modality; of two that are equally exact the later wins.
    """
    best, exactness = settings.completion.quiet_seconds, 0
    for item in settings.completion.quiet:
        if item.calling_ae not in {"", calling_ae} or item.modality not in {"", modality}:
            continue
        exact = 2 * bool(item.calling_ae) + bool(item.modality)
        if exact >= exactness:
            best, exactness = item.seconds, exact
    return best


def _with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    node = settings.node.model_copy(
        update={"data_dir": (folder / settings.node.data_dir).resolve()}
    )
    engines = settings.engines.model_copy(
        update={"folders": tuple(folder / item for item in settings.engines.folders)}
    )
    profiles = ProfilesSettings(folders=tuple(folder / item for item in settings.profiles.folders))
    updates: dict[str, BaseModel] = {"node": node, "engines": engines, "profiles": profiles}
    if settings.rules.file is not None:
        updates["rules"] = RulesSettings(file=folder / settings.rules.file)
    if settings.database.password_file is not None:
        password_file = folder / settings.database.password_file
        updates["database"] = settings.database.model_copy(update={"password_file": password_file})
    return settings.model_copy(update=updates)
