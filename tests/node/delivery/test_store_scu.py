"""What arrives is what was kept, whatever a peer takes and however it cuts its answers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.delivery.dimse import MOST_CONTEXTS
from node.interfaces import Outgoing, SendVerdict
from tests.factories import make_ct_series
from tests.node.delivery.objects import (
    data_set,
    large_object,
    outgoing,
    send,
    target_at,
    verdicts,
)
from tests.node.delivery.scripted_peer import (
    P_DATA,
    Link,
    Message,
    ScriptedPeer,
    associate_ac,
    command_set,
    pdu,
    pdv,
)

ACCEPTED, REFUSED, RETRY = SendVerdict.ACCEPTED, SendVerdict.REFUSED, SendVerdict.RETRY
CT = "1.2.840.10008.5.1.4.1.1.2"
SENDS_A_LARGE_OBJECT = """
import resource, sys
from pathlib import Path
from node.interfaces import Outgoing, Sent
from tests.node.delivery.objects import outgoing, send, target_at
target, small, large = target_at(int(sys.argv[1])), *outgoing([Path(p) for p in sys.argv[2:]])
assert send(target, [small])[0][1].verdict == "accepted"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert send(target, [large])[0][1].verdict == "accepted"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    folder = tmp_path_factory.mktemp("ct")
    return outgoing(make_ct_series(folder, slices=3, rows=24, columns=24))


def cut(content: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at places, each taken modulo their number."""
    marks = sorted({0, len(content), *(place % len(content) for place in places)})
    return [content[start:stop] for start, stop in pairwise(marks)]


@settings(max_examples=60, deadline=None)
@given(
    max_pdu=st.just(0) | st.integers(8, 64) | st.integers(64, 40_000) | st.just(0xFFFFFFFF),
    fragments=st.lists(st.integers(0, 200), max_size=4),
    pdvs_in_a_pdu=st.integers(1, 3),
    pieces=st.lists(st.integers(0, 400), max_size=6),
)
def test_any_maximum_length_and_any_cut_of_the_answer_will_do(
    objects: list[Outgoing],
    max_pdu: int,
    fragments: list[int],
    pdvs_in_a_pdu: int,
    pieces: list[int],
) -> None:
    received: list[Message] = []

    def answer(message: Message) -> bytes:
        parts = cut(command_set(message), fragments)
        pdvs = [
            pdv(message.context_id, 3 if at == len(parts) else 1, part)
            for at, part in enumerate(parts, 1)
        ]
        return b"".join(
            pdu(P_DATA, b"".join(pdvs[at : at + pdvs_in_a_pdu]))
            for at in range(0, len(pdvs), pdvs_in_a_pdu)
        )

    def script(link: Link) -> None:
        link.accept(max_pdu=max_pdu)
        for _ in objects:
            received.append(link.message())
            for piece in cut(answer(received[-1]), pieces):
                link.send(piece)
        link.release()

    with ScriptedPeer(script) as peer:
        assert verdicts(send(target_at(peer.port), objects)) == [ACCEPTED] * 3
    assert [message.data_set for message in received] == [data_set(o.path) for o in objects]
    assert [str(message.command.AffectedSOPInstanceUID) for message in received] == [
        item.sop_instance_uid for item in objects
    ]
    assert len({message.command.MessageID for message in received}) == 3
    for message in received:
        assert not max_pdu or message.longest <= max_pdu
        assert not any(length % 2 for length in message.fragments)


def test_object_of_many_windows_arrives_whole(tmp_path: Path) -> None:
    item = large_object(tmp_path / "large.dcm", (9 << 20) + 2)
    with item.path.open("r+b") as file:
        for place in range(1 << 16, item.path.stat().st_size, 70_001):
            file.seek(place)
            file.write(place.to_bytes(4, "big"))
    received = []

    def script(link: Link) -> None:
        link.accept(max_pdu=0)
        message = link.message()
        received.append(message.data_set)
        link.answer(message)
        link.release()

    with ScriptedPeer(script) as peer:
        assert verdicts(send(target_at(peer.port), [item])) == [ACCEPTED]
    assert received == [data_set(item.path)]


def test_memory_does_not_grow_with_the_object(tmp_path: Path) -> None:
    small = large_object(tmp_path / "small.dcm", 16 << 20)
    large = large_object(tmp_path / "large.dcm", 256 << 20)

    def script(link: Link) -> None:
        link.accept(max_pdu=131072)
        message = link.command()
        link.data_set()
        link.answer(message)
        link.release()

    with ScriptedPeer(script) as peer:
        done = subprocess.run(
            [sys.executable, "-c", SENDS_A_LARGE_OBJECT, str(peer.port)]
            + [str(item.path) for item in (small, large)],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2048  # KiB


def test_file_that_becomes_shorter_midway_is_refused_and_the_others_wait(
    tmp_path: Path, objects: list[Outgoing]
) -> None:
    item = large_object(tmp_path / "large.dcm", 1 << 26)

    def script(link: Link) -> None:
        link.accept()
        link.pdu()
        os.truncate(item.path, 1 << 16)
        link.wait_for_end()

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port), [item, *objects])
    assert verdicts(reports) == [REFUSED, RETRY, RETRY, RETRY]
    assert "became shorter" in reports[0][1].message


# ---------------------------------------------------------------- contexts


def test_objects_of_more_classes_than_an_association_has_contexts_are_all_sent(
    objects: list[Outgoing], tmp_path: Path
) -> None:
    made = []
    for number in range(150):
        dataset = dcmread(objects[0].path)
        dataset.SOPClassUID = UID(f"{CT}.{number}")
        dataset.SOPInstanceUID = UID(f"1.2.3.{number}")
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(tmp_path / f"{number}.dcm")
        made.append(tmp_path / f"{number}.dcm")
    seen: list[str] = []

    def script(link: Link) -> None:
        link.accept()
        assert len(link.proposed) <= MOST_CONTEXTS
        while (message := link.message_or_release()) is not None:
            link.answer(message)
            seen.append(message.command.AffectedSOPInstanceUID)

    with ScriptedPeer(script) as peer:
        assert verdicts(send(target_at(peer.port), outgoing(made))) == [ACCEPTED] * 150
    assert seen == [f"1.2.3.{number}" for number in range(150)]
    assert peer.associations == 3


def results_by_syntax(link: Link, refused: dict[str, int]) -> bytes:
    """Return an A-ASSOCIATE-AC that refuses some transfer syntaxes, with these results."""
    link.request()
    return associate_ac(
        {
            number: (refused.get(syntaxes[0], 0), syntaxes[0])
            for number, (_, syntaxes) in link.proposed.items()
        },
        16384,
    )


def as_kept(item: Outgoing, path: Path, syntax: UID) -> Outgoing:
    dataset = dcmread(item.path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    return replace(item, path=path, transfer_syntax_uid=str(syntax))


@pytest.mark.parametrize(
    ("kept", "other"),
    [
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    ],
)
def test_only_what_the_peer_does_not_take_as_it_is_kept_is_transcoded_and_that_is_told(
    kept: UID, other: UID, objects: list[Outgoing], tmp_path: Path
) -> None:
    """NET-05: both uncompressed syntaxes are proposed, each in its own context."""
    mixed = [
        as_kept(objects[0], tmp_path / "0.dcm", kept),
        as_kept(objects[1], tmp_path / "1.dcm", other),
    ]
    received: list[tuple[str, bytes]] = []

    def script(link: Link) -> None:
        link.send(results_by_syntax(link, {str(kept): 4}))
        for _ in mixed:
            message = link.message()
            received.append((link.proposed[message.context_id][1][0], message.data_set))
            link.answer(message, 0xB000)
        link.release()

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port), mixed)
    assert verdicts(reports) == [SendVerdict.WARNED] * 2
    assert reports[0][1].message == (
        f"kept, with a warning; sent as {other.name}: the destination takes SOP class {CT}, "
        f"but not as {kept.name}"
    )
    assert reports[1][1].message == "kept, with a warning"
    as_other = as_kept(objects[0], tmp_path / "2.dcm", other)
    assert received == [
        (str(other), data_set(as_other.path)),
        (str(other), data_set(mixed[1].path)),
    ]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (3, f"the destination takes no SOP class {CT}"),
        (4, f"the destination takes SOP class {CT}, but not as Explicit VR Little Endian"),
        (1, f"the destination did not accept SOP class {CT} as Explicit VR Little Endian"),
    ],
)
def test_refusal_of_a_context_is_worded_as_the_peer_meant_it(
    result: int, words: str, objects: list[Outgoing]
) -> None:
    refused = {str(ExplicitVRLittleEndian): result, str(ImplicitVRLittleEndian): result}

    def script(link: Link) -> None:
        link.send(results_by_syntax(link, refused))
        link.release()

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port), objects)
    assert verdicts(reports) == [REFUSED] * 3
    assert {sent.message for _, sent in reports} == {words}


def test_context_that_is_accepted_in_a_syntax_that_was_not_offered_is_not_used(
    objects: list[Outgoing],
) -> None:
    def script(link: Link) -> None:
        link.request()
        link.send(associate_ac(dict.fromkeys(link.proposed, (0, "1.2.840.10008.1.2.4.50")), 16384))
        link.release()

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port), objects)
    assert verdicts(reports) == [REFUSED] * 3
    assert "did not accept" in reports[0][1].message


def test_compressed_object_is_offered_in_its_own_syntax_alone(
    objects: list[Outgoing],
) -> None:
    """NET-05."""
    compressed = replace(objects[0], transfer_syntax_uid="1.2.840.10008.1.2.4.70")
    proposed: list[tuple[str, tuple[str, ...]]] = []

    def script(link: Link) -> None:
        link.accept()
        proposed.extend(link.proposed.values())
        link.release()

    with ScriptedPeer(script) as peer:
        ((_, sent),) = send(target_at(peer.port), [compressed])
    assert proposed == [(CT, ("1.2.840.10008.1.2.4.70",))]
    assert sent.verdict is REFUSED
    assert sent.message == "the file is in another transfer syntax, Explicit VR Little Endian"


def test_each_unfit_file_has_words_of_its_own_and_the_others_are_sent(
    objects: list[Outgoing], tmp_path: Path
) -> None:
    text, nameless = tmp_path / "text.dcm", tmp_path / "nameless.dcm"
    text.write_text("no DICOM")
    dataset = dcmread(objects[0].path)
    for element in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"):
        del dataset.file_meta[element]
    dataset.save_as(nameless, implicit_vr=False, little_endian=True)
    unfit = [
        (replace(objects[0], path=text), "the file is no DICOM file: it does not say DICM"),
        (replace(objects[0], path=tmp_path / "gone"), "the file cannot be read: FileNotFoundError"),
        (replace(objects[0], path=nameless), "the file does not say its transfer syntax"),
        (
            replace(objects[0], sop_instance_uid=""),
            "the object has no SOP Class, SOP Instance or Transfer Syntax UID",
        ),
        (
            replace(objects[0], path=objects[1].path),
            "the file holds another object: its file meta information has other UIDs",
        ),
    ]

    def script(link: Link) -> None:
        link.accept()
        link.answer(link.message())
        link.release()

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port), [*(item for item, _ in unfit), objects[2]])
    assert verdicts(reports) == [REFUSED] * 5 + [ACCEPTED]
    assert [sent.message for _, sent in reports[:5]] == [words for _, words in unfit]


def test_objects_without_uids_alone_are_refused_without_an_association(
    objects: list[Outgoing],
) -> None:
    def script(_: Link) -> None:
        raise AssertionError("nothing can be proposed")

    with ScriptedPeer(script) as peer:
        reports = send(target_at(peer.port), [replace(objects[0], sop_class_uid="Größe")])
    assert verdicts(reports) == [REFUSED]
