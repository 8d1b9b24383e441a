from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import UID

import node.results
from engines.findings import Outcome
from node.interfaces import IMPLEMENTATION_CLASS_UID, ResultWriter
from node.plugins import discover
from node.results import _identity as identity
from tests.node.results.building import (
    Headers,
    analysis,
    context,
    nothing_found,
    refusal,
    save_all,
    series,
)


@pytest.fixture
def headers(tmp_path: Path) -> Headers:
    return series(tmp_path / "source")


def digests(headers: Headers, folder: Path) -> dict[str, str]:
    found = {}
    outcomes: dict[str, Outcome] = {
        "found": analysis(headers),
        "nothing": nothing_found(headers),
        "refused": refusal(),
    }
    for name, outcome in outcomes.items():
        for writer, path in save_all(context(headers, outcome), folder / name).items():
            found[f"{name}/{writer}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_a_second_run_in_another_process_makes_the_same_bytes(
    headers: Headers, tmp_path: Path
) -> None:
    """OBJ-07: nothing is taken from the clock."""
    here = digests(headers, tmp_path / "here")
    program = (
        "import pathlib, sys, tests.node.results.test_identity as t, "
        "tests.node.results.building as b\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "headers = b.read_headers(sorted((folder / 'source').iterdir()))\n"
        "sys.stdout.write(repr(t.digests(headers, folder / 'there')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"},
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == repr(here)


def test_uids_are_valid_and_made_of_uuids() -> None:
    made = identity.derived_uid("a", 1, ["b"])
    assert UID(made).is_valid
    assert made.startswith("2.25.")
    assert made != identity.derived_uid("a", 1, "b")
    assert UID(IMPLEMENTATION_CLASS_UID).is_valid


def test_instances_differ_by_revision_writer_and_engine_package(headers: Headers) -> None:
    first = context(headers, analysis(headers))
    second = context(headers, analysis(headers), generation=2)
    other = replace(first, engine=replace(first.engine, digest="cd" * 32))
    made = {
        identity.instance_uid(first, "a"),
        identity.instance_uid(first, "b"),
        identity.instance_uid(first, "a", 1),
        identity.instance_uid(second, "a"),
        identity.instance_uid(other, "a"),
    }
    assert len(made) == 5


def test_a_series_is_kept_over_re_runs_and_left_by_a_new_engine_version(headers: Headers) -> None:
    first = context(headers, analysis(headers))
    again = context(headers, analysis(headers), generation=2)
    newer = replace(first, engine=replace(first.engine, version="1.3.0"))
    series_of_first = identity.series_uid(first, "a")
    assert identity.series_uid(again, "a") == series_of_first
    assert identity.series_uid(newer, "a") != series_of_first
    assert identity.series_uid(replace(first, rule="other"), "a") != series_of_first


def test_jobs_on_two_series_of_a_study_do_not_share_a_result_series(
    headers: Headers, tmp_path: Path
) -> None:
    other = series(tmp_path / "other", series=2)
    one, two = context(headers, analysis(headers)), context(other, analysis(other))
    assert identity.series_uid(one, "a") != identity.series_uid(two, "a")
    key = analysis(headers)
    assert identity.tracking_uid(one, key, "x") != identity.tracking_uid(two, analysis(other), "x")


def test_a_job_keeps_its_series_whichever_of_its_sources_the_outcome_names(
    headers: Headers, tmp_path: Path
) -> None:
    both = headers + series(tmp_path / "other", series=2)
    uids = tuple({str(header.SeriesInstanceUID) for header in both})
    refused = replace(context(both, refusal()), series_instance_uids=uids)
    found = replace(context(headers, analysis(headers)), series_instance_uids=uids)
    assert identity.series_uid(refused, "a") == identity.series_uid(found, "a")


def test_a_finding_is_tracked_over_re_runs_and_engine_versions(headers: Headers) -> None:
    """OBJ-17."""
    outcome = analysis(headers)
    first = context(headers, outcome)
    newer = replace(first, generation=4, engine=replace(first.engine, version="9", digest="00"))
    tracked = identity.tracking_uid(first, outcome, "lung-left")
    assert identity.tracking_uid(newer, outcome, "lung-left") == tracked
    assert identity.tracking_uid(first, outcome, "lung-right") != tracked


def test_each_public_file_is_one_writer() -> None:
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]  # plugin base
    files = Path(node.results.__path__[0]).glob("[!_]*.py")
    assert sorted(writers) == sorted(file.stem for file in files)


def test_pictures_and_documents_are_made_only_where_they_are_asked_for() -> None:
    """SEG-10: nor label maps."""
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]  # plugin base
    assert sorted(name for name, writer in writers.items() if writer.by_default) == [
        "bulk_annotations",
        "classification_report",
        "measurement_report",
        "segmentation",
        "text_report",
    ]
