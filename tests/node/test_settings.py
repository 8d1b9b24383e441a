"""The configuration file: what it takes, what stops the start, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

import node.delivery
import node.listeners
from node.doors import build_targets, check_dicomweb, check_listeners
from node.interfaces import DeliveryTarget, Listener, PluginSettings
from node.plugins import discover
from node.settings import (
    Settings,
    SettingsError,
    load_settings,
    quiet_seconds_for,
    validate_plugin_table,
)
from tests.places import CONFIG, ROOT

DOOR = "[listeners.dimse]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "wetread.toml"


def loaded(file: Path, text: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def refusal(file: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(file, text)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


# ---------------------------------------------------------------- what stops the start


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "listeners: at least one way in is needed, such as [listeners.dimse]"),
        ("[listeners]", "listeners: at least one way in is needed, such as [listeners.dimse]"),
        ("listeners = 5", "listeners: must be a table"),
        (DOOR + "[listener]", "listener: is not known here; known are admin, alerts, completion"),
        (
            DOOR + "[retention]\nstudies_days = 0",
            "retention.studies_days: ",
        ),
        (
            DOOR + "[retention]\ndisk_low_mib = 1024\ndisk_high_mib = 9000",
            "the file: retention.disk_low_mib: must be more than storage.reserve_mib",
        ),
        (
            DOOR + "[retention]\ndisk_low_mib = 1500\ndisk_high_mib = 1600",
            "the file: retention.disk_high_mib: must be at least disk_low_mib and storage.resume",
        ),
        (
            DOOR + "[worker]\nproceses = 1",
            "worker.proceses: is not known here; known are idle_seconds, lease_seconds, max_atte",
        ),
        (DOOR + "[worker]\nprocesses = '1'", "worker.processes: must be a whole number"),
        (DOOR + "[worker]\nprocesses = 1.0", "worker.processes: must be a whole number"),
        (DOOR + "[worker]\nprocesses = true", "worker.processes: must be a whole number"),
        (DOOR + "[worker]\nprocesses = 0", "worker.processes: must be greater than 0"),
        (
            DOOR + "[engines]\nladder = ['openvino fast']",
            "engines.ladder: fast is neither",
        ),
        (DOOR + "[engines]\nladder = ['Open VINO']", "engines.ladder: VINO is neither a device"),
        (DOOR + "[engines]\nladder = ['OpenVINO']", "engines.ladder: OpenVINO is no name of a"),
        (DOOR + "[engines]\nladder = ['']", "engines.ladder: a rung begins with the name of a"),
        (DOOR + "[completion]\nquiet_seconds = '30'", "completion.quiet_seconds: must be a number"),
        (DOOR + "[completion]\nquiet_seconds = inf", "completion.quiet_seconds: must be a finite"),
        (DOOR + "[[completion.quiet]]\nmodality = 'CT'", "completion.quiet[0].seconds: is missing"),
        (DOOR + "[completion]\nwait_seconds = -1", "completion.wait_seconds: must be greater than"),
        (DOOR + "[completion.query]\nport = 104", "completion.query.host: is missing"),
        (
            DOOR + "[completion.query]\nhost = 'x'\nae_title = 'PACS'\nwait_seconds = 3",
            "completion.query.wait_seconds: is not known here; known are acse_seconds, ae_title",
        ),
        (
            DOOR + "[completion.query]\nhost = 'x'\nae_title = 'PACS'\nport = 70000",
            "completion.query.port: must be less than or equal to 65535",
        ),
        (
            DOOR + "[[completion.quiet]]\nseconds = 3",
            "completion.quiet[0]: give calling_ae, modality or both",
        ),
        (
            DOOR + "[[completion.quiet]]\nmodality = 'CT'\nseconds = 3\nsecond = 3",
            "completion.quiet[0].second: is not known here; known are calling_ae, modality, seco",
        ),
        (DOOR + "[admin]\nenabled = 1", "admin.enabled: must be true or false"),
        (DOOR + "[admin]\nhost = '0.0.0.0'", "admin.host: must be '127.0.0.1', '::1' or"),
        (DOOR + "[admin]\nport = 70000", "admin.port: must be less than or equal to 65535"),
        (DOOR + "[logging]\nlevel = 'loud'", "logging.level: must be 'debug', 'info', 'warning'"),
        (DOOR + "[node]\nname = ''", "node.name: must have at least 1 character"),
        (DOOR + "[node]\nname = '12345678901234567'", "node.name: must have at most 16 char"),
        (DOOR + "[node]\nname = 'a\\b'", "node.name: must be printable, without backslash"),
        (DOOR + "[node]\ndata_dir = 5", "node.data_dir: must be text"),
        (DOOR + "[engines]\nfolders = 'x'", "engines.folders: must be a list"),
        ("destinations.x = 5\n" + DOOR, "destinations.x: must be a table"),
        (DOOR + "[destinations.'a b']\nkind = 'dimse'", "destinations.a b: must match pattern"),
        (
            DOOR + "[database]\nurl = 'postgresql+psycopg://u:secret@db/x'",
            "database.url: the password belongs in password_file",
        ),
        (
            DOOR + "[database]\nurl = 'postgresql+psycopg://db/x?user=u&password=secret'",
            "database.url: the password belongs in password_file",
        ),
        (
            DOOR + "[database]\nurl = 'postgresql://u:{password}@db/x'",
            "database: {password} in url and password_file go together",
        ),
        (
            DOOR + "[database]\npassword_file = 'x'",
            "database: {password} in url and password_file go together",
        ),
        ("x =", "not TOML: Invalid value"),
        (DOOR + DOOR, "not TOML: Cannot declare ('listeners', 'dimse') twice (at line 2"),
        ("a = " + "[" * 5000, "not TOML that can be read: nested too deeply"),
    ],
)
def test_a_wrong_key_stops_the_start_and_is_named(file: Path, text: str, says: str) -> None:
    assert refusal(file, text).startswith(says)


def test_a_refused_password_is_not_repeated(file: Path) -> None:
    text = DOOR + "[database]\nurl = 'postgresql://u:secret@db/x'"
    assert "secret" not in refusal(file, text)


def test_all_that_is_wrong_is_told_at_once(file: Path) -> None:
    message = refusal(file, "[node]\nname = 1\n[admin]\nport = 'x'\n[wrker]\n")
    for path in ("node.name: ", "admin.port: ", "wrker: ", "listeners: "):
        assert path in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, file: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file"):
        load_settings(file)
    with pytest.raises(SettingsError, match="Is a directory"):
        load_settings(tmp_path)
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(SettingsError, match="utf-8"):
        load_settings(file)


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError):
        load_settings(file)


# ---------------------------------------------------------------- what is taken


def test_the_shortest_configuration_has_all_defaults(file: Path) -> None:
    settings = loaded(file, DOOR)
    assert settings.node.name == "WETREAD"
    assert settings.completion.quiet_seconds == 30.0
    assert settings.destinations == {}
    assert settings.rules.file is None


def test_settings_are_frozen(file: Path) -> None:
    settings = loaded(file, DOOR)
    with pytest.raises(ValidationError):
        settings.node.name = "X"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.admin = settings.admin  # type: ignore[misc]


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = loaded(
        Path("etc/wetread.toml"),
        DOOR
        + "[node]\ndata_dir = '../data'\n[rules]\nfile = 'rules.toml'\n"
        + "[engines]\nfolders = ['engines', '/opt/engines']\n"
        + "[database]\nurl = 'postgresql://u:{password}@db/x'\npassword_file = 'password'",
    )
    etc = tmp_path / "etc"
    assert settings.node.data_dir == tmp_path / "data"
    assert settings.rules.file == etc / "rules.toml"
    assert settings.engines.folders == (etc / "engines", Path("/opt/engines"))
    assert settings.database.password_file == etc / "password"


def test_absolute_paths_stay(file: Path) -> None:
    settings = loaded(file, DOOR + "[node]\ndata_dir = '/srv/wetread'")
    assert settings.node.data_dir == Path("/srv/wetread")
    assert settings.database_url() == "sqlite:////srv/wetread/wetread.db"


def test_the_environment_and_the_home_folder_are_not_put_in(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAME", "X")
    settings = loaded(file, DOOR + "[node]\nname = '${NAME}'\ndata_dir = '~/x'")
    assert settings.node.name == "${NAME}"
    assert settings.node.data_dir == file.parent / "~" / "x"


# ---------------------------------------------------------------- the database's password

DATABASE = (
    DOOR
    + "[database]\nurl = 'postgresql+psycopg://wetread:{password}@db:5432/x'\n"
    + "password_file = 'password'\n"
)


@pytest.mark.parametrize(
    ("password", "quoted"),
    [
        ("plain", "plain"),
        (" framed by blanks \n", "framed%20by%20blanks"),
        ("p@ss/w:rd%?", "p%40ss%2Fw%3Ard%25%3F"),
        ("{data_dir}{password}", "%7Bdata_dir%7D%7Bpassword%7D"),
        ("größe", "gr%C3%B6%C3%9Fe"),
    ],
)
def test_the_password_comes_from_its_file(file: Path, password: str, quoted: str) -> None:
    (file.parent / "password").write_text(password, encoding="utf-8")
    settings = loaded(file, DATABASE)
    assert settings.database_url() == f"postgresql+psycopg://wetread:{quoted}@db:5432/x"
    assert quoted not in repr(settings)


def test_a_password_file_that_gives_none_is_named(file: Path) -> None:
    settings = loaded(file, DATABASE)
    with pytest.raises(SettingsError, match=r"database\.password_file: .*No such file"):
        settings.database_url()
    (file.parent / "password").write_text("\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"database\.password_file: .*is empty"):
        settings.database_url()
    (file.parent / "password").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"database\.password_file: "):
        settings.database_url()


@pytest.mark.parametrize(
    "url", ["postgresql://user@db:5432/x", "postgresql:///x", "sqlite:////a:b@c/x.db"]
)
def test_a_url_without_password_is_taken(file: Path, url: str) -> None:
    assert loaded(file, DOOR + f"[database]\nurl = '{url}'").database_url() == url


# ---------------------------------------------------------------- quiet time

QUIET = (
    DOOR
    + "[completion]\nquiet_seconds = 30\n"
    + "".join(
        f"[[completion.quiet]]\n{text}\n"
        for text in (
            "calling_ae = 'CT1'\nmodality = 'SR'\nseconds = 1",
            "calling_ae = 'CT1'\nseconds = 2",
            "modality = 'SR'\nseconds = 3",
            "modality = 'MR'\nseconds = 4",
            "modality = 'MR'\nseconds = 5",
        )
    )
)


@pytest.mark.parametrize(
    ("modality", "calling_ae", "seconds"),
    [
        ("SR", "CT1", 1),
        ("CT", "CT1", 2),
        ("MR", "CT1", 2),
        ("SR", "CT2", 3),
        ("MR", "CT2", 5),
        ("US", "CT2", 30),
        ("", "", 30),
        ("sr", "ct1", 30),
    ],
)
def test_the_most_exact_quiet_time_counts(
    file: Path, modality: str, calling_ae: str, seconds: float
) -> None:
    assert quiet_seconds_for(loaded(file, QUIET), modality, calling_ae) == seconds


# ---------------------------------------------------------------- tables of plugins


class Inner(BaseModel):
    name: str = Field(min_length=2)


class Plugin(PluginSettings):
    port: int
    seconds: float = 1.0
    folder: Path | None = None
    peers: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({}, "listeners.x.port: is missing"),
        ({"port": "1"}, "listeners.x.port: must be a whole number"),
        ({"port": 1, "prt": 1}, "listeners.x.prt: is not known here; known are folder, peers, p"),
        ({"port": 1, "seconds": float("inf")}, "listeners.x.seconds: must be a finite number"),
        ({"port": 1, "peers": {}}, "listeners.x.peers: must be a list"),
        ({"port": 1, "peers": [{"name": "ab"}, {}]}, "listeners.x.peers[1].name: is missing"),
        ({"port": 1, "folder": "in"}, "listeners.x.folder: in: must be an absolute path"),
    ],
)
def test_a_wrong_key_of_a_plugin_is_named(raw: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        validate_plugin_table(raw, Plugin, "listeners.x")
    assert str(caught.value).startswith(says)


def test_the_table_of_a_plugin_is_checked_as_strictly_as_the_rest() -> None:
    raw = {"port": 1, "seconds": 2, "folder": "/in", "peers": [{"name": "ab"}]}
    settings = validate_plugin_table(raw, Plugin, "listeners.x")
    assert settings == Plugin(port=1, seconds=2.0, folder=Path("/in"), peers=(Inner(name="ab"),))


def test_every_plugin_refuses_a_key_it_does_not_know() -> None:
    ways_in = discover(node.listeners, Listener)  # type: ignore[type-abstract]  # a plugin base
    ways_out = discover(node.delivery, DeliveryTarget)  # type: ignore[type-abstract]
    types = [
        *(kind.settings_type for kind in ways_in.values()),
        *(kind.settings_type for kind in ways_out.values()),
    ]
    assert len(types) >= 4
    for settings_type in types:
        with pytest.raises(SettingsError, match=r"a\.b\.nonsense: is not known here"):
            validate_plugin_table({"nonsense": 1}, settings_type, "a.b")


# ---------------------------------------------------------------- the example


def test_the_example_loads_with_all_its_plugins() -> None:
    settings = load_settings(CONFIG / "wetread.toml")
    assert settings.node.data_dir == ROOT / "var"
    assert settings.database_url() == f"sqlite:///{ROOT}/var/wetread.db"
    [(_, door)] = check_listeners(settings)
    assert door.model_dump()["allow_any_peer"] is False
    assert [peer["ae_title"] for peer in door.model_dump()["peers"]] == ["WETREAD-SEND", "CT1"]
    assert set(build_targets(settings)) == {"pacs"}
    assert settings.admin.host == "127.0.0.1"


def test_what_the_example_has_commented_out_is_right_too(tmp_path: Path) -> None:
    text = (CONFIG / "wetread.toml").read_text(encoding="utf-8")
    query = ("# host", "# port", "# ae_title", "# ignore_modalities")
    web = ("# name", "# tls", "# origins", "# token")
    marks = ("# url", "# password", "# [", "# folder", "# kind", *query, *web)
    lines = [
        line.removeprefix("# ") if line.startswith(marks) else line for line in text.splitlines()
    ]
    settings = loaded(tmp_path / "wetread.toml", "\n".join(lines))
    assert settings.database.password_file == Path("/etc/wetread/database-password")
    assert {kind.name for kind, _ in check_listeners(settings)} == {
        "dicomweb",
        "dimse",
        "folder",
    }
    assert settings.completion.query is not None
    assert settings.completion.query.ignore_modalities == ("PR", "KO")
    assert set(build_targets(settings)) == {"pacs", "research", "web"}
    served = check_dicomweb(settings)
    assert served is not None
    assert [user.name for user in served.users] == ["viewer"]
