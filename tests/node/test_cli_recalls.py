"""`wetread recall` and `recalls` as an admin meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli import app
from node.doors import build_profiles
from node.settings import load_settings
from node.stores import prepare
from tests.storage.holding import STUDY, Holding, arrived

CONFIGURATION = """
[node]
data_dir = "data"
[listeners.dimse]
port = 0
allow_any_peer = true
"""


@pytest.fixture
def site(filled: Path, tmp_path: Path) -> Path:
    """Give a node's folder, with one result that was sent and one that waits."""
    shutil.copytree(filled, tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make such a folder once; each test has a copy."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "wetread.toml").write_text(CONFIGURATION)
    settings = load_settings(folder / "wetread.toml")
    prepare(settings)
    held = Holding(settings.database_url())
    held.deliverable(results=2)
    leased = held.send()
    held.deliveries.record(leased.delivery.id, leased.token, arrived())
    held.close()
    return folder


def wetread(site: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(site / "wetread.toml")])


def test_a_dry_run_tells_what_a_recall_hits_and_changes_nothing(site: Path) -> None:
    told = wetread(site, "recall", "--engine", "liver", "--dry-run").output
    assert STUDY in told
    assert "would be recalled: 2 results of 1 studies, 1 notes" in told
    assert wetread(site, "recall", "--engine", "liver", "--dry-run").output == told
    assert "liver" not in wetread(site, "recalls").output


def test_a_recall_is_told_listed_and_done_once(site: Path) -> None:
    recalled = ("recall", "--engine", "liver@1.0", "--reason", "spleen", "--by", "anna")
    answer = wetread(site, *recalled)
    assert answer.exit_code == 0
    assert "recall 1: 2 results of 1 studies, 1 notes; a running node sends them" in answer.output
    assert "the engine still takes jobs" in answer.output
    assert "nothing to recall" in wetread(site, *recalled).output
    listed = wetread(site, "recalls").output
    for text in ("liver@1.0", "anna", "spleen"):
        assert text in listed
    assert "results.recalled" in wetread(site, "timeline", STUDY).output


def test_jobs_that_run_or_wait_are_told(site: Path) -> None:
    held = Holding(load_settings(site / "wetread.toml").database_url())
    held.receive(2)
    held.route(jobs=3)
    held.lease()
    held.close()
    looked = wetread(site, "recall", "--engine", "liver", "--dry-run").output
    assert "would be recalled: 2 results of 1 studies, 1 running jobs, 1 notes" in looked
    answer = " ".join(wetread(site, "recall", "--engine", "liver", "--reason", "x").output.split())
    assert "recall 1: 2 results of 1 studies, 1 running jobs, 1 notes" in answer
    assert "1 jobs of the engine run just now: what they make is taken back" in answer
    assert "left: 2 jobs of the engine wait; they run, and are sent" in answer
    again = json.loads(
        wetread(site, "recall", "--engine", "liver", "--reason", "x", "--json").stdout
    )
    assert (again["recall"], again["running_jobs"], again["queued_jobs"]) == (None, 0, 2)


def test_programs_get_json(site: Path) -> None:
    answer = wetread(site, "recall", "--engine", "liver", "--reason", "spleen", "--json")
    assert json.loads(answer.stdout) == {
        "recall": 1,
        "unversioned": 0,
        "running_jobs": 0,
        "queued_jobs": 0,
        "studies": [
            {
                "study_instance_uid": STUDY,
                "results": 2,
                "unsent": 1,
                "destinations": ["PACS"],
            }
        ],
    }


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--since", "2024-03-02"), 0),
        (("--since", "2024-03-01", "--until", "2024-03-02"), 1),
        (("--until", "2024-03-01T08:00:00"), 0),
        (("--study", STUDY), 1),
    ],
)
def test_time_and_study_narrow_it(options: tuple[str, ...], found: int, site: Path) -> None:
    answer = wetread(site, "recall", "--engine", "liver", "--dry-run", "--json", *options)
    assert len(json.loads(answer.stdout)["studies"]) == found


def test_results_of_an_unknown_version_are_told_and_left(site: Path) -> None:
    held = Holding(load_settings(site / "wetread.toml").database_url())
    held.execute("UPDATE job SET engine_version = ''")
    held.close()
    answer = wetread(site, "recall", "--engine", "liver@1.0", "--reason", "spleen")
    assert "left: 2 results of which it is not known which version made them" in answer.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "liver"), "--reason: say why"),
        (("--engine", "liver", "--reason", "  "), "--reason: say why"),
        (("--engine", "lungs", "--reason", "x"), "no job was ever done by an engine lungs"),
        (("--engine", "liver", "--study", "1.2", "--reason", "x"), "there is no study 1.2"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    arguments: tuple[str, ...], said: str, site: Path
) -> None:
    answer = wetread(site, "recall", *arguments)
    assert answer.exit_code == 2
    assert said in answer.output


def test_the_title_of_the_notes_is_a_choice(site: Path) -> None:
    """UID-06: patient safety, or quality."""
    wetread(site, "recall", "--engine", "liver", "--reason", "spleen", "--quality")
    held = Holding(load_settings(site / "wetread.toml").database_url())
    assert [record.code for record in held.recalls.list()] == ["113001"]
    held.close()


def test_whether_a_destination_is_told_what_is_superseded_is_yes_or_no(site: Path) -> None:
    """UID-06: off unless the configuration has it."""
    table = f'[destinations.pacs]\nkind = "folder"\nfolder = "{site}"\n'
    for value, status, told in (
        ("", 0, frozenset[str]()),
        ("reject_superseded = true\n", 0, frozenset({"pacs"})),
        ('reject_superseded = "yes"\n', 2, None),
    ):
        (site / "wetread.toml").write_text(CONFIGURATION + table + value)
        answer = wetread(site, "check-config")
        assert answer.exit_code == status
        if told is None:
            assert "destinations.pacs.reject_superseded: must be true or false" in answer.output
        else:
            assert build_profiles(load_settings(site / "wetread.toml")).rejecting == told
