"""TLS on the port: who says nothing, or has the wrong papers, holds up nobody (T06, T07)."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from pynetdicom import AE
from pynetdicom.pdu_primitives import _UI as UserInformation
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from tests.end_to_end.guarded import GUARD, GuardedNode
from tests.end_to_end.papers import (
    Papers,
    authority,
    intermediate,
    issued,
    issued_for_later,
    revocation_list,
)
from tests.end_to_end.pdus import ASSOCIATE_AC, associate_rq
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor

PASSCODE = "correct horse"
SILENT = int(GUARD["max_associations_per_address"]) - 2


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return authority(tmp_path_factory.mktemp("papers") / "hospital")


@pytest.fixture(scope="module")
def scanner(hospital: Papers) -> Papers:
    return issued(hospital, "scanner")


def tls_table(hospital: Papers) -> str:
    own = issued(hospital, "node")
    return f"""[listeners.dimse.tls]
revocations = "{revocation_list(hospital)}"
certificate = "{own.certificate}"
key = "{own.key}"
authorities = "{own.authority}"
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, hospital: Papers) -> Iterator[GuardedNode]:
    settings = f"""peers = [
  {{ ae_title = "ECHOSCU" }},
  {{ ae_title = "FUZZ" }},
  {{ ae_title = "SCANNER", certificate_names = ["scanner", "scanner.example.org"] }},
]
{tls_table(hospital)}"""
    folder = tmp_path_factory.mktemp("tls") / "node"
    running = GuardedNode(folder=folder, peers=settings)
    with running:
        wait_until(lambda: "engine.verified" in running.log(), "the engine is verified")
        yield running


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GuardedNode, Papers]]:
    """Start a node that asks every sender for a user identity; return papers that it takes."""
    hospital = authority(tmp_path_factory.mktemp("papers") / "hospital")
    passcode = hospital.key.parent / "passcode"
    passcode.write_text(PASSCODE + "\n")
    settings = f"""peers = [ {{ ae_title = "ECHOSCU" }} ]
users = [
  {{ name = "reader" }},
  {{ name = "sender", passcode_file = "{passcode}" }},
]
{tls_table(hospital)}"""
    running = GuardedNode(folder=tmp_path_factory.mktemp("tls") / "node", peers=settings)
    with running:
        yield running, issued(hospital, "scanner")


def echoscu_status(node: GuardedNode, papers: Papers, calling: str = "ECHOSCU") -> int:
    """Run dcmtk's echoscu over TLS; return its exit status."""
    tls = ["+tls", papers.key, papers.certificate, "+cf", papers.authority]
    command = [
        "echoscu",
        "-to",
        "5",
        "-ta",
        "5",
        "-aet",
        calling,
        "-aec",
        "WETREAD",
        *map(str, tls),
    ]
    return subprocess.run(
        [*command, "127.0.0.1", str(node.port)], check=False, capture_output=True, timeout=60
    ).returncode


def test_silent_clients_hold_up_no_handshake_and_are_dropped(
    node: GuardedNode, scanner: Papers
) -> None:
    """T06."""
    base = node.base()
    with ExitStack() as stack:
        silent = [stack.enter_context(Requestor(node.port)) for _ in range(SILENT)]
        assert echoscu_status(node, scanner) == 0
        assert any(not requestor.is_closed() for requestor in silent)
        assert all(requestor.rest() == [] for requestor in silent)
    node.wait_back_at(base)
    assert echoscu_status(node, scanner) == 0
    node.assert_log()


def drain(connection: socket.socket) -> None:
    """Read to the end of a connection; a reset is one too."""
    with suppress(ConnectionResetError):
        while connection.recv(4096):
            continue


def test_half_a_handshake_is_dropped(node: GuardedNode, scanner: Papers) -> None:
    """T06: a hello that never goes on, and bytes that are none."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
        incoming, outgoing, server_hostname="node"
    )
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for start in (hello[:50], hello, b"\x01\x00" + bytes(70)):
        with Requestor(node.port) as requestor:
            requestor.send(start)
            drain(requestor.socket)
    assert echoscu_status(node, scanner) == 0
    node.assert_log()


def test_plain_dicom_gets_no_association(node: GuardedNode) -> None:
    """T07."""
    with Requestor(node.port) as requestor:
        answer = None
        try:
            answer = requestor.associate()
        except OSError:
            return
        assert answer is None or answer[0] != ASSOCIATE_AC


@pytest.mark.parametrize("kind", ["none", "other authority", "old protocol"])
def test_wrong_papers_get_no_association(kind: str, node: GuardedNode, scanner: Papers) -> None:
    """T07: no certificate, one by another authority, TLS 1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(scanner.authority)
    if kind == "other authority":
        other = authority(node.folder.parent / "other")
        papers = issued(other, "stranger")
        context.load_cert_chain(papers.certificate, papers.key)
    elif kind == "old protocol":
        context.load_cert_chain(scanner.certificate, scanner.key)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as plain:
        assert not let_in(context, plain)


def let_in(context: ssl.SSLContext, plain: socket.socket) -> bool:
    """Say whether something is answered behind the handshake, which in TLS 1.3 ends early."""
    try:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
            wrapped.sendall(associate_rq())
            return bool(wrapped.recv(1))
    except OSError:
        return False


def test_right_papers_get_an_association(node: GuardedNode, scanner: Papers) -> None:
    """What the refusals above are measured by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(scanner.authority)
    context.load_cert_chain(scanner.certificate, scanner.key)
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as plain:
        assert let_in(context, plain)


def wait_for_line(node: GuardedNode, text: str) -> None:
    """Wait: a peer may know of its refusal before the log does."""
    wait_until(lambda: text in node.log(), f"the log says {text!r}", 10)


def test_an_ae_title_is_for_those_whose_certificate_says_so(
    node: GuardedNode, hospital: Papers, scanner: Papers
) -> None:
    """T07: the name in the certificate is not in the table of the AE title."""
    other = issued(hospital, "workstation")
    assert echoscu_status(node, scanner, "SCANNER") == 0
    assert echoscu_status(node, other, "ECHOSCU") == 0
    assert echoscu_status(node, other, "SCANNER") != 0
    wait_for_line(node, "the names in its certificate")
    wait_for_line(node, "workstation")


def test_an_expired_certificate_gets_no_association(node: GuardedNode, hospital: Papers) -> None:
    """T07."""
    old = issued(hospital, "old", days=0)
    time.sleep(1.1)
    assert echoscu_status(node, old) != 0
    wait_for_line(node, "certificate has expired")


def test_a_revoked_certificate_gets_no_association_from_when_the_list_says_so(
    node: GuardedNode, hospital: Papers, scanner: Papers
) -> None:
    """T07: the list is read again without a restart; a list that cannot be read changes nothing."""
    stolen = issued(hospital, "stolen")
    assert echoscu_status(node, stolen) == 0
    found = revocation_list(hospital, stolen)
    assert echoscu_status(node, stolen) != 0
    wait_for_line(node, "certificate revoked")
    assert echoscu_status(node, scanner) == 0
    found.write_text("no list")
    assert echoscu_status(node, stolen) != 0
    wait_for_line(node, "tls.not_read_again")
    revocation_list(hospital)
    assert echoscu_status(node, scanner) == 0


def test_a_certificate_that_is_not_valid_yet_gets_no_association(
    node: GuardedNode, hospital: Papers
) -> None:
    """T07."""
    early = issued_for_later(hospital, "early")
    assert echoscu_status(node, early) != 0
    wait_for_line(node, "certificate is not yet valid")


def test_a_revocation_list_that_has_expired_refuses_every_sender(
    node: GuardedNode, hospital: Papers, scanner: Papers
) -> None:
    """T07: who is on the list that should have come by now, nobody knows."""
    revocation_list(hospital, seconds=1)
    time.sleep(2.1)
    try:
        assert echoscu_status(node, scanner) != 0
        wait_for_line(node, "CRL has expired")
    finally:
        revocation_list(hospital)
    assert echoscu_status(node, scanner) == 0


def test_an_authority_that_was_revoked_vouches_for_nobody(
    node: GuardedNode, hospital: Papers
) -> None:
    """T07: the lists of the whole chain are looked at."""
    department = intermediate(hospital)
    scanner = issued(department, "theirs")
    context = ssl.create_default_context(cafile=str(hospital.authority))
    chain = scanner.key.with_suffix(".chain")
    chain.write_text(scanner.certificate.read_text() + department.certificate.read_text())
    context.load_cert_chain(chain, scanner.key)

    def is_let_in() -> bool:
        with socket.create_connection(("127.0.0.1", node.port), timeout=20) as plain:
            return let_in(context, plain)

    of_department = revocation_list(department).read_text()
    found = revocation_list(hospital)
    found.write_text(found.read_text() + of_department)
    try:
        assert is_let_in()
        revocation_list(hospital, department)
        found.write_text(found.read_text() + of_department)
        assert not is_let_in()
        wait_for_line(node, "certificate revoked")
    finally:
        revocation_list(hospital)


def identities(shown: tuple[int, str, str] | None) -> list[UserInformation]:
    """Return the extended negotiation of a user identity, of none if there is none to show."""
    if shown is None:
        return []
    kind, name, passcode = shown
    identity = UserIdentityNegotiation()
    identity.user_identity_type = kind
    identity.primary_field = name.encode()
    if kind == 2:
        identity.secondary_field = passcode.encode()
    return [identity]


@pytest.mark.parametrize(
    ("shown", "accepted"),
    [
        (None, False),
        ((1, "reader", ""), True),
        ((2, "reader", "whatever"), True),
        ((2, "sender", PASSCODE), True),
        ((2, "sender", "wrong staple"), False),
        ((1, "sender", ""), False),
        ((1, "nobody", ""), False),
        ((3, "reader", ""), False),
        ((4, "reader", ""), False),
        ((5, "reader", ""), False),
    ],
)
def test_user_identities_are_those_of_the_settings(
    shown: tuple[int, str, str] | None, accepted: bool, asking: tuple[GuardedNode, Papers]
) -> None:
    """T10, NET-15, NET-10: (2, 2, 1), also for who shows none, and no passcode in the log."""
    node, scanner = asking
    context = ssl.create_default_context(cafile=str(scanner.authority))
    context.load_cert_chain(scanner.certificate, scanner.key)
    entity = AE("ECHOSCU")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate(
        "127.0.0.1", node.port, ae_title="WETREAD", ext_neg=identities(shown),
        tls_args=(context, "127.0.0.1"),
    )  # fmt: skip
    try:
        assert association.is_established is accepted
        if not accepted:
            answer = association.acceptor.primitive
            assert answer is not None
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 2, 1)
    finally:
        if association.is_established:
            association.release()
    assert PASSCODE not in node.log()
    assert "wrong staple" not in node.log()
