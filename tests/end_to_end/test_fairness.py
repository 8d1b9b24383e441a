"""A22: a source that floods is told so, and an urgent study does not notice it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from pydicom import dcmread

from node.pacs import StandInPacs
from tests.end_to_end.guarded import MIB, GuardedNode
from tests.end_to_end.pdus import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CONTEXTS,
    ECHO_CONTEXT,
    Context,
    associate_rq,
    data_set,
)
from tests.end_to_end.requestor import Requestor
from tests.factories import make_ct_series
from tests.node.listeners.receiving import data_set_bytes

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
CONGESTED: Final = (2, 3, 1)
LOCAL_LIMIT: Final = (2, 3, 2)
QUOTA_MIB: Final = 4
PLACES: Final = 6
URGENT_PLACES: Final = 2
MORE_THAN_ANY_DISK: Final = 1 << 40  # MiB
PEERS: Final = """
[[listeners.dimse.peers]]
ae_title = "RESEARCH"
[[listeners.dimse.peers]]
ae_title = "CT1"
[[listeners.dimse.peers]]
ae_title = "STROKE"
urgent = true
"""


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


def fair_node(
    folder: Path, pacs: StandInPacs, storage: str, guard: Mapping[str, int]
) -> GuardedNode:
    return GuardedNode(
        folder=folder / "node",
        pacs_port=pacs.port,
        quiet_seconds=1.0,
        extra=f"[storage]\nreserve_mib = 1\nspare_packs = 0\n{storage}",
        guard=guard,
        peers=PEERS,
    )


def ask(
    stack: ExitStack, node: GuardedNode, calling: bytes, contexts: Sequence[Context] = CONTEXTS
) -> Requestor | tuple[int, int, int]:
    """Return an association that was accepted, or why it was not."""
    requestor = stack.enter_context(Requestor(node.port))
    answer = requestor.associate(associate_rq(contexts, calling=calling))
    assert answer is not None
    kind, content = answer
    if kind == ASSOCIATE_RJ:
        return content[1], content[2], content[3]
    assert kind == ASSOCIATE_AC
    return requestor


def accepted(stack: ExitStack, node: GuardedNode, calling: bytes) -> Requestor:
    found = ask(stack, node, calling)
    assert isinstance(found, Requestor), found
    return found


def assert_is_read(node: GuardedNode, pacs: StandInPacs, sender: Requestor, folder: Path) -> None:
    """Send a CT over an association; hold that its results are at the PACS."""
    files = make_ct_series(folder)
    for number, file in enumerate(files):
        uid = str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        assert sender.store(uid, data_set_bytes(file), message_id=number + 1) == SUCCESS
    sender.release()
    study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    node.wait_settled(study)
    (at_pacs,) = [found for found in pacs.listing() if found.study_instance_uid == study]
    classes = {one.sop_class_uid for series in at_pacs.series for one in series.instances}
    assert "1.2.840.10008.5.1.4.1.1.66.4" in classes


@pytest.mark.parametrize(
    "guard",
    [
        {"max_associations": PLACES, "urgent_associations": URGENT_PLACES},
        {"max_associations_per_address": PLACES - URGENT_PLACES},
    ],
    ids=["in all", "from its address"],
)
def test_a_flood_gets_0xa700_and_an_urgent_study_is_read_meanwhile(
    guard: Mapping[str, int], tmp_path: Path, pacs: StandInPacs
) -> None:
    """A22, NET-10: quota for the one, its places for the other, from C-STORE to the PACS.

    Both may come through one router: then it is the address that has no more places for others.
    """
    node = fair_node(tmp_path, pacs, f"quota_mib = {QUOTA_MIB}\n", guard)
    with node, ExitStack() as stack:
        flooding = [accepted(stack, node, b"RESEARCH") for _ in range(PLACES - URGENT_PLACES)]
        statuses = [
            flooding[number % len(flooding)].store(
                f"2.25.22{number}",
                data_set(f"2.25.22{number}", pixels=bytes(MIB)),
                message_id=number + 1,
            )
            for number in range(2 * QUOTA_MIB)
        ]
        assert statuses == [SUCCESS] * QUOTA_MIB + [OUT_OF_RESOURCES] * QUOTA_MIB
        assert b"quota" in flooding[-1].last[0x0902], "it is told why"
        assert ask(stack, node, b"CT1") == LOCAL_LIMIT
        urgent = accepted(stack, node, b"STROKE")
        assert_is_read(node, pacs, urgent, tmp_path / "stroke")
        late = data_set("2.25.23", pixels=bytes(MIB))
        assert flooding[0].store("2.25.23", late) == OUT_OF_RESOURCES, "its study still waits"


def test_where_disk_is_short_only_urgent_studies_come_in_and_are_read(
    tmp_path: Path, pacs: StandInPacs
) -> None:
    """A22, NET-10: (2, 3, 1) for the others, before they send anything; an echo needs no room."""
    storage = f"urgent_mib = {MORE_THAN_ANY_DISK}\n"
    node = fair_node(tmp_path, pacs, storage, {})
    with node, ExitStack() as stack:
        assert ask(stack, node, b"CT1") == CONGESTED
        assert isinstance(ask(stack, node, b"CT1", [ECHO_CONTEXT]), Requestor)
        urgent = accepted(stack, node, b"STROKE")
        assert_is_read(node, pacs, urgent, tmp_path / "stroke")
        assert "reserve for urgent senders" in node.log()
