"""The status of every C-STORE that a sender can bring about (STANDARDS 5.2; PS3.4 B.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.end_to_end.guarded import GuardedNode, guarded
from tests.end_to_end.pdus import (
    CT_CONTEXT,
    MR_IMAGE_STORAGE,
    c_store_rq,
    command_set,
    data_set,
    message,
    p_data,
    release_rq,
)
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor, associated

STUDY: Final = "2.25.7001"
SUCCESS: Final = 0x0000
INVALID_INSTANCE: Final = 0x0117
MISMATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
OFFENDING_ELEMENT: Final = 0x0901
ERROR_COMMENT: Final = 0x0902
C_FIND_RQ: Final = 0x0020


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNode]:
    with guarded(tmp_path_factory.mktemp("statuses")) as process:
        yield process


@pytest.fixture(autouse=True)
def unharmed(node: GuardedNode) -> Iterator[None]:
    base, logged = node.base(), node.logged()
    yield
    node.wait_back_at(base)
    node.assert_unharmed(since=logged)


@pytest.fixture
def sender(node: GuardedNode) -> Iterator[Requestor]:
    with associated(node.port) as requestor:
        yield requestor


def test_an_instance_and_the_same_again_are_successes(node: GuardedNode, sender: Requestor) -> None:
    """0x0000; NET-06: kept as it came, and known when it comes again."""
    content = data_set("2.25.5200", pixels=b"5200" * 100)
    assert sender.store("2.25.5200", content) == SUCCESS
    assert sender.store("2.25.5200", content, message_id=2) == SUCCESS
    wait_until(lambda: node.has(STUDY, "2.25.5200"), "it has its row", 10)
    assert ERROR_COMMENT not in sender.last


def test_other_bytes_under_a_known_uid_are_a_success_that_overwrites_nothing(
    node: GuardedNode, sender: Requestor
) -> None:
    """0x0000, and the second one is kept apart: never overwritten, never lost."""
    first, second = (data_set("2.25.5201", pixels=mark * 100) for mark in (b"one ", b"two "))
    assert sender.store("2.25.5201", first) == SUCCESS
    assert sender.store("2.25.5201", second, message_id=2) == SUCCESS
    wait_until(lambda: node.has(STUDY, "2.25.5201"), "it has its row", 10)
    wait_until(lambda: bool(node.kept(first) and node.kept(second)), "both are kept", 10)
    assert sum(row.sop_instance_uid == "2.25.5201" for row in node.instances(STUDY)) == 1


WRONG: Final[dict[str, tuple[int, int | None, Callable[[str], bytes]]]] = {
    "another class": (
        MISMATCH,
        0x00080016,
        lambda uid: data_set(uid, sop_class_uid=MR_IMAGE_STORAGE),
    ),
    "another instance": (MISMATCH, 0x00080018, lambda uid: data_set(f"{uid}.1")),
    "no class": (MISMATCH, 0x00080016, lambda uid: data_set(uid, sop_class_uid="")),
    "no instance": (MISMATCH, 0x00080018, lambda _: data_set("")),
    "no study": (MISMATCH, 0x0020000D, lambda uid: data_set(uid, study_instance_uid="")),
    "no series": (MISMATCH, 0x0020000E, lambda uid: data_set(uid, series_instance_uid="")),
    "a study that is no UID": (
        CANNOT_UNDERSTAND,
        None,
        lambda uid: data_set(uid, study_instance_uid="1..2"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_data_set_that_does_not_match_is_refused_with_the_element_that_is_wrong(
    name: str, node: GuardedNode, sender: Requestor
) -> None:
    """0xA900 with Offending Element, 0xC000 where a value cannot be understood; kept apart."""
    status, tag, made = WRONG[name]
    before = len(node.quarantined())
    uid = f"2.25.5202{[*WRONG].index(name)}"
    assert sender.store(uid, made(uid)) == status
    offending = sender.last.get(OFFENDING_ELEMENT)
    if tag is None:
        assert offending is None
    else:
        assert offending == tag.to_bytes(4)[1::-1] + tag.to_bytes(4)[:1:-1]
    assert len(sender.last[ERROR_COMMENT]) <= 64
    wait_until(lambda: len(node.quarantined()) == before + 1, "it is in quarantine", 10)


def test_a_data_set_that_ends_too_soon_is_not_understood(sender: Requestor) -> None:
    """0xC000."""
    assert sender.store("2.25.5203", data_set("2.25.5203")[:40]) == CANNOT_UNDERSTAND


def test_an_instance_uid_that_is_none_is_refused_by_its_name(sender: Requestor) -> None:
    """0x0117, before the data set is looked at."""
    assert sender.store("1..2", data_set("1..2")) == INVALID_INSTANCE
    assert sender.last[OFFENDING_ELEMENT] == bytes([0, 0, 0, 0x10])


def test_an_instance_after_a_refused_one_is_taken(node: GuardedNode, sender: Requestor) -> None:
    """One bad instance sinks neither the association nor the study."""
    assert sender.store("2.25.5205", b"nothing") == CANNOT_UNDERSTAND
    assert sender.store("2.25.5206", data_set("2.25.5206"), message_id=2) == SUCCESS
    wait_until(lambda: node.has(STUDY, "2.25.5206"), "it has its row", 10)


def test_a_request_that_the_context_does_not_have_ends_the_association(
    sender: Requestor,
) -> None:
    """A C-FIND-RQ in a context of a storage class: nobody agreed on it (0x0211, 0x0212)."""
    request = command_set(
        {0x0002: CT_CONTEXT.abstract_syntax, 0x0100: C_FIND_RQ, 0x0110: 1, 0x0700: 0, 0x0800: 1}
    )
    sender.send(p_data(*message(CT_CONTEXT.id, request, command=True)))
    sender.send(p_data(*message(CT_CONTEXT.id, data_set("2.25.5"), command=False)))
    sender.send(release_rq())
    sender.rest()
    assert all(status != SUCCESS for _, status in sender.answered)


def test_what_came_before_an_abort_is_kept(node: GuardedNode) -> None:
    """NET-16: whether a study is complete does not depend on how its association ended."""
    with associated(node.port) as requestor:
        assert requestor.store("2.25.5207", data_set("2.25.5207")) == SUCCESS
        half = message(CT_CONTEXT.id, c_store_rq("2.25.5208"), command=True)
        requestor.send(p_data(*half))
        requestor.vanish()
    wait_until(lambda: node.has(STUDY, "2.25.5207"), "it has its row", 10)
    assert not node.has(STUDY, "2.25.5208")
