"""The command line as an admin meets it: what is printed, and with which status it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import text
from typer.testing import CliRunner, Result

from node import reception
from node.cli import app
from node.pacs import StandInPacs
from node.probing import sop_classes_of_objects
from node.settings import load_settings
from node.stores import open_stores, prepare
from storage.pack_folders import WriterLock
from storage.records import Routing
from tests.end_to_end.processes import free_port
from tests.factories import make_ct_series
from tests.no_device import without_a_device
from tests.node.delivery.choosy_pacs import ChoosyPacs
from tests.node.listeners.receiving import data_set_bytes
from tests.node.taking_in import TakingIn

CONFIGURATION = """
[node]
data_dir = "data"
[listeners.dimse]
port = 0
allow_any_peer = true
[destinations.pacs]
kind = "dimse"
host = "127.0.0.1"
port = 11113
ae_title = "PACS"
[rules]
file = "rules.toml"
"""
CLASSES = sop_classes_of_objects()
RULES = """
[[rules]]
name = "ct"
engines = ["ct-body-composition"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "CT"}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "wetread.toml").write_text(CONFIGURATION)
    (tmp_path / "rules.toml").write_text(RULES)
    return tmp_path


def wetread(site: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(site / "wetread.toml")])


def receive(site: Path) -> str:
    """Put a CT study into the node's stores; return its UID."""
    settings = load_settings(site / "wetread.toml")
    prepare(settings)
    stores = open_stores(settings)
    stores.rules.save(RULES, by="test")
    stores.database.close()
    data = settings.node.data_dir
    (data / "test.db").symlink_to("wetread.db")
    taking_in = TakingIn(data, quiet_time=lambda _modality, _ae: 30.0).start()
    uid = ""
    for file in make_ct_series(site / "ct", slices=2, rows=16, columns=16):
        uid = str(dcmread(file, stop_before_pixels=True).StudyInstanceUID)
        taking_in.accept(file)
    taking_in.close()
    return uid


def test_a_second_node_in_the_same_folder_is_refused(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "LOCK_SECONDS", 0.1)
    with WriterLock(site / "data" / "objects" / "packs").take(0):
        answer = wetread(site, "run")
    assert answer.exit_code == 1
    assert "packs: another process of a node writes there" in answer.output


@pytest.mark.parametrize("command", ["check-config", "run"])
def test_several_listening_processes_are_refused_on_sqlite(site: Path, command: str) -> None:
    changed = CONFIGURATION.replace("port = 0\n", "port = 0\nprocesses = 2\n")
    (site / "wetread.toml").write_text(changed)
    answer = wetread(site, command)
    assert answer.exit_code == 2
    assert "listeners.dimse.processes: several processes need PostgreSQL" in answer.output
    assert not (site / "data").exists()


def test_good_configuration_is_told_with_what_it_would_start(site: Path) -> None:
    result = wetread(site, "check-config")
    assert result.exit_code == 0
    assert "dicom://PACS@127.0.0.1:11113" in result.output
    assert "ct-body-composition" in result.output


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('data_dir = "data"', 'data_dri = "data"', "node.data_dri"),
        ('kind = "dimse"', 'kind = "pigeon"', "destinations.pacs.kind"),
        ("port = 11113", 'port = "many"', "destinations.pacs.port"),
        ("port = 0\n", "prt = 0\n", "listeners.dimse.prt"),
        ("[listeners.dimse]", "[listeners.door]", "listeners.door"),
        ('file = "rules.toml"', 'file = "none.toml"', "none.toml"),
        ("port = 11113", 'profile = "osirix"', "destinations.pacs.profile"),
        ("[rules]", '[profiles]\nfolders = ["none"]\n[rules]', "none: there is no such folder"),
    ],
)
def test_wrong_configuration_ends_with_status_2_and_names_the_key(
    old: str, new: str, named: str, site: Path
) -> None:
    (site / "wetread.toml").write_text(CONFIGURATION.replace(old, new))
    result = wetread(site, "check-config")
    assert result.exit_code == 2
    assert named in result.output


def test_rule_that_names_a_missing_engine_is_refused(site: Path) -> None:
    (site / "rules.toml").write_text(RULES.replace("ct-body-composition", "ct-everything"))
    result = wetread(site, "check-config")
    assert result.exit_code == 2
    assert "ct-everything" in result.output


def test_missing_configuration_and_unknown_command_end_with_status_2(site: Path) -> None:
    assert CliRunner().invoke(app, ["studies", "--config", str(site / "no.toml")]).exit_code == 2
    assert CliRunner().invoke(app, ["reed"]).exit_code == 2


def test_commands_say_what_to_run_where_there_is_no_schema(site: Path) -> None:
    result = wetread(site, "studies")
    assert result.exit_code == 2
    assert "wetread migrate" in result.output


def test_schema_goes_up_and_down(site: Path) -> None:
    assert wetread(site, "migrate").exit_code == 0
    assert wetread(site, "studies").exit_code == 0
    assert wetread(site, "migrate", "--down", "--revision", "base").exit_code == 0
    assert wetread(site, "studies").exit_code == 2


def test_study_is_listed_completed_replayed_and_its_timeline_told(site: Path) -> None:
    uid = receive(site)
    assert uid in wetread(site, "studies").output
    assert wetread(site, "complete", uid, "--by", "anna").exit_code == 0
    timeline = wetread(site, "timeline", uid).output
    assert "study.received" in timeline
    assert "anna" in timeline
    assert wetread(site, "replay", uid).exit_code == 0
    assert wetread(site, "replay", uid).exit_code == 2  # it is receiving already


def test_unknown_study_is_named(site: Path) -> None:
    receive(site)
    result = wetread(site, "timeline", "1.2.3")
    assert result.exit_code == 2
    assert "1.2.3" in result.output


def test_explanation_shows_each_condition_with_the_value_found(site: Path) -> None:
    uid = receive(site)
    result = wetread(site, "rules", "explain", uid)
    assert result.exit_code == 0
    assert "Modality equals CT: yes (found CT)" in result.output
    assert '"verdict": true' in wetread(site, "rules", "explain", uid, "--json").output


def test_rules_file_is_checked_with_its_key_path(site: Path) -> None:
    good = CliRunner().invoke(app, ["rules", "check", str(site / "rules.toml")])
    assert good.exit_code == 0
    (site / "rules.toml").write_text(RULES.replace("Modality", "Modalty"))
    bad = CliRunner().invoke(app, ["rules", "check", str(site / "rules.toml")])
    assert bad.exit_code == 2
    assert "rules[0].conditions" in bad.output
    assert "Modality" in bad.output


def test_golden_cases_of_shipped_engines_pass_here(site: Path) -> None:
    listed = wetread(site, "engines", "list")
    assert "ct-body-composition" in listed.output
    verified = wetread(site, "engines", "verify")
    assert verified.exit_code == 0
    assert "active" in verified.output


@without_a_device
def test_engines_are_listed_with_the_ways_to_run_them_and_why_one_cannot_be_used(
    site: Path,
) -> None:
    file = site / "wetread.toml"
    text = file.read_text()
    file.write_text(f'{text}\n[engines]\nladder = ["tensorrt cuda float16", "openvino"]\n')
    words = " ".join(wetread(site, "engines", "list").output.replace("│", " ").split())
    assert "tensorrt" in words
    assert "not here" in words
    verified = wetread(site, "engines", "verify")
    assert "active runs on openvino cpu float32; not on tensorrt cuda float16" in verified.output
    assert "there is no NVIDIA driver" in verified.output
    devices = CliRunner().invoke(app, ["engines", "devices"]).output
    assert "there is no NVIDIA driver" in devices
    assert "onnxruntime 1." in devices


def test_files_are_sent_and_refusals_end_with_status_1(tmp_path: Path) -> None:
    make_ct_series(tmp_path / "ct", slices=3, rows=16, columns=16)
    pacs = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    arguments = ["send", str(tmp_path / "ct"), "--port", str(pacs.port), "--called", "PACS"]
    try:
        assert "3 of 3 objects accepted" in CliRunner().invoke(app, arguments).output
        pacs.refuse_with(0xA900)
        assert CliRunner().invoke(app, arguments).exit_code == 1
    finally:
        pacs.stop()
    assert CliRunner().invoke(app, arguments).exit_code == 1


def test_files_that_cannot_be_sent_are_counted_with_the_reason(tmp_path: Path) -> None:
    files = make_ct_series(tmp_path / "ct", slices=3, rows=16, columns=16)
    (tmp_path / "ct" / "notes.txt").write_text("no DICOM")
    (tmp_path / "ct" / "README").write_text("no DICOM either")
    nameless = dcmread(files[0])
    del nameless.SOPInstanceUID
    nameless.save_as(files[0])
    pacs = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    arguments = ["send", str(tmp_path / "ct"), "--port", str(pacs.port), "--called", "PACS"]
    try:
        output = CliRunner().invoke(app, arguments).output
    finally:
        pacs.stop()
    assert "2 of 2 objects accepted" in output
    assert "passed over 2: no DICOM file" in output
    assert "passed over 1: no SOP Class, SOP Instance or Transfer Syntax UID" in output


def test_worker_of_its_own_needs_postgresql(site: Path) -> None:
    result = wetread(site, "worker")
    assert result.exit_code == 2
    assert "PostgreSQL" in result.output


def test_export_writes_every_instance_as_a_plain_file(site: Path, tmp_path: Path) -> None:
    uid = receive(site)
    result = wetread(site, "export", uid, str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    sent = {dcmread(file).SOPInstanceUID: data_set_bytes(file) for file in (site / "ct").iterdir()}
    exported = {
        file.name.removesuffix(".dcm"): data_set_bytes(file)
        for file in (tmp_path / "out").iterdir()
    }
    assert exported == sent
    again = wetread(site, "export", uid, str(tmp_path / "out"))
    assert again.exit_code == 2
    assert "File exists" in again.output


def let_go(site: Path) -> str:
    """Receive a study that no rule wants, and let all rules of retention end at once."""
    uid = receive(site)
    stores = open_stores(load_settings(site / "wetread.toml"))
    stores.studies.complete_now(uid, by="test")
    record = stores.studies.get(uid)
    routing = Routing(rule_revision=1, jobs=(), explanation={})
    stores.studies.route(record.id, record.revision, routing)
    with stores.database.transaction() as session:
        session.execute(text("UPDATE study SET complete_after = first_received_at"))
    stores.database.close()
    with (site / "wetread.toml").open("a") as file:
        file.write("[retention]\nstudies_days = 1e-7\n")
    return uid


def test_retention_deletes_nothing_unless_a_rule_is_given(site: Path) -> None:
    receive(site)
    assert (
        "names no rule: nothing is ever deleted" in wetread(site, "retention", "--dry-run").output
    )
    assert "0 deletions, 0 whole packs" in wetread(site, "retention").output


def test_retention_shows_what_would_go_and_then_deletes_it(site: Path, tmp_path: Path) -> None:
    uid = let_go(site)
    planned = wetread(site, "retention", "--dry-run").output
    assert uid in planned
    assert "1 items, 3.7 kB would be freed; nothing was changed" in planned
    assert wetread(site, "export", uid, str(tmp_path / "before")).exit_code == 0
    assert wetread(site, "hold", uid, "--reason", "complaint", "--by", "anna").output == "held\n"
    assert "0 items" in wetread(site, "retention", "--dry-run").output
    assert "complaint" in wetread(site, "holds").output
    assert wetread(site, "release", uid).output == "released\n"
    assert wetread(site, "release", uid).output == "it was not held\n"
    assert "1 deletions, 1 whole packs" in wetread(site, "retention").output
    assert "of 2 of 2 instances" in wetread(site, "hold", uid).output
    assert "study.bytes_deleted" in wetread(site, "timeline", uid).output


def test_export_replay_and_rules_say_that_bytes_were_deleted(site: Path, tmp_path: Path) -> None:
    uid = let_go(site)
    wetread(site, "retention")
    exported = wetread(site, "export", uid, str(tmp_path / "after"))
    assert exported.exit_code == 1
    assert "0 files in" in exported.output
    assert "bytes deleted by retention on" in exported.output
    assert list((tmp_path / "after").iterdir()) == []
    replayed = wetread(site, "replay", uid)
    assert replayed.exit_code == 2
    assert "bytes were deleted by retention on" in replayed.output
    assert "on what is left: of 2 of 2" in wetread(site, "rules", "explain", uid).output


def test_export_refuses_bytes_that_are_not_those_that_were_received(
    site: Path, tmp_path: Path
) -> None:
    uid = receive(site)
    (pack,) = (site / "data" / "objects" / "packs").glob("*.pack")
    content = bytearray(pack.read_bytes())
    content[1200] ^= 0xFF
    pack.write_bytes(content)
    result = wetread(site, "export", uid, str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "its bytes are not those that were received" in result.output


def test_export_of_what_is_not_there_says_so(site: Path, tmp_path: Path) -> None:
    receive(site)
    result = wetread(site, "export", "1.2.3", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "there is no study, series or instance 1.2.3" in result.output


def test_result_profiles_are_listed_with_where_they_lie_and_who_has_them(site: Path) -> None:
    output = wetread(site, "destinations", "profiles").output
    assert "pacs-basic" in output
    assert "segmentation > " in output
    answer = wetread(site, "destinations", "profiles", "--json")
    found = {item["name"]: item for item in json.loads(answer.output)}
    assert found["standard"]["destinations"] == ["pacs"]
    assert Path(found["ohif"]["path"]).name == "ohif.toml"
    assert found["ohif"]["sets"]["not_analysed"][0][0] == "text_report"


def test_a_destination_is_probed_and_a_profile_proposed(site: Path) -> None:
    """VIEW-01, VIEW-02."""
    objects = ("secondary_capture", "text_report")
    with ChoosyPacs([uid for name in objects for uid in CLASSES[name]]) as pacs:
        text = CONFIGURATION.replace("11113", str(pacs.port))
        (site / "wetread.toml").write_text(text)
        shown = wetread(site, "destinations", "probe", "pacs")
        answer = wetread(site, "destinations", "probe", "--json")
        assert pacs.asked.total() == 0
    assert (shown.exit_code, answer.exit_code) == (0, 0)
    assert "Enhanced SR Storage" in shown.output
    assert "(refused: segmentation" in shown.output
    assert 'profile = "pacs-basic"' in shown.output
    probe = json.loads(answer.output)["pacs"]
    assert (probe["profile"], probe["proposal"]) == ("standard", "pacs-basic")
    assert probe["objects"] == sorted(objects)
    assert probe["accepted"][CLASSES["segmentation"][0]] == []


def test_a_destination_that_fits_its_profile_is_told_so(site: Path) -> None:
    with ChoosyPacs([uid for uids in CLASSES.values() for uid in uids]) as pacs:
        text = CONFIGURATION.replace("11113", str(pacs.port))
        (site / "wetread.toml").write_text(text)
        assert (
            "Its profile fits: nothing that standard sends"
            in wetread(site, "destinations", "probe").output
        )


def test_a_destination_that_takes_nothing_or_is_not_there_ends_with_status_1(site: Path) -> None:
    (site / "wetread.toml").write_text(CONFIGURATION.replace("11113", str(free_port())))
    gone = wetread(site, "destinations", "probe")
    assert gone.exit_code == 1
    assert "Connection refused" in gone.output
    with ChoosyPacs([]) as pacs:
        (site / "wetread.toml").write_text(CONFIGURATION.replace("11113", str(pacs.port)))
        silent = wetread(site, "destinations", "probe")
    assert silent.exit_code == 1
    assert "every result would be silent" in silent.output


def test_a_destination_that_is_not_configured_is_named(site: Path) -> None:
    answer = wetread(site, "destinations", "probe", "archive")
    assert answer.exit_code == 2
    assert "'archive' is not one of ['pacs']" in answer.output
