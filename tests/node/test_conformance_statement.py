"""The conformance statement says what the code accepts and answers (PS3.2)."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

import node.results
from node.archive import STUDY_ROOT_FIND
from node.interfaces import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, ResultWriter
from node.listeners import _attributes, _pdata
from node.plugins import discover
from node.result_profiles import PLANNED
from tests.places import STATEMENT, STATEMENT_GENERATOR

WRITE = "python deploy/docs/conformance_tables.py --write deploy/docs/conformance.md"
TEXT = STATEMENT.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance_tables", STATEMENT_GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_statement_are_up_to_date(generator: ModuleType) -> None:
    if generator.put_into(TEXT) != TEXT:
        pytest.fail(f"the tables of {STATEMENT.name} are out of date; run: {WRITE}")


def test_every_uid_in_a_table_has_a_name() -> None:
    rows = re.findall(r"(?m)^\| ([^|]+) \| `([0-9.]+)` \|", TEXT)
    assert len(rows) > 200
    assert [uid for name, uid in rows if name.strip() == uid] == []


def test_what_the_statement_says_in_words_is_so() -> None:
    """NET-13, NET-14 are held by the tests of negotiation; these are numbers and names."""
    assert IMPLEMENTATION_CLASS_UID in TEXT
    assert IMPLEMENTATION_VERSION_NAME in TEXT
    assert STUDY_ROOT_FIND in TEXT
    limits = (
        f"Limits: {_attributes.MOST_BYTES >> 20} MiB, {_attributes.MOST_ELEMENTS:,} elements, "
        f"{_attributes.DEEPEST} levels"
    )
    assert limits in TEXT
    assert _pdata.LONGEST_OTHER_MESSAGE == _attributes.MOST_BYTES


def test_every_object_that_is_made_is_told_with_its_class() -> None:
    """AIR-08: what an Evidence Creator documents."""
    told = set(re.findall(r"(?m)^\| ([a-z ]+) \| [^|]+ \| `(1\.2\.840[0-9.]+)` \| [^|]+ \|$", TEXT))
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]  # plugin base
    made = {
        (name.replace("_", " "), uid)
        for name, writer in writers.items()
        for uid in writer.sop_class_uids or PLANNED[name]
    }
    assert told == made
