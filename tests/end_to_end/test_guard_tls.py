"""TLS on the port: who says nothing, or has the wrong papers, holds up nobody (T06, T07)."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.guarded import GUARD, GuardedNode
from tests.end_to_end.pdus import ASSOCIATE_AC, associate_rq
from tests.end_to_end.processes import wait_until
from tests.end_to_end.requestor import Requestor

SILENT = int(GUARD["max_associations_per_address"]) - 2


@dataclass(frozen=True)
class Papers:
    """A certificate, its key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder: Path) -> Papers:
    """Make an authority that signs itself."""
    folder.mkdir(parents=True)
    key, certificate = folder / "ca.key", folder / "ca.pem"
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests",
            "-keyout", key, "-out", certificate)  # fmt: skip
    return Papers(certificate, key, certificate)


def issued(by: Papers, name: str) -> Papers:
    """Let an authority sign a certificate for 127.0.0.1."""
    folder = by.key.parent
    key, request, certificate = (folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", request)  # fmt: skip
    openssl("x509", "-req", "-in", request, "-CA", by.certificate, "-CAkey", by.key,
            "-CAcreateserial", "-days", "2", "-copy_extensions", "copy",
            "-out", certificate)  # fmt: skip
    return Papers(certificate, key, by.certificate)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return authority(tmp_path_factory.mktemp("papers") / "hospital")


@pytest.fixture(scope="module")
def scanner(hospital: Papers) -> Papers:
    return issued(hospital, "scanner")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, hospital: Papers) -> Iterator[GuardedNode]:
    own = issued(hospital, "node")
    settings = f"""allow_any_peer = true
[listeners.dimse.tls]
certificate = "{own.certificate}"
key = "{own.key}"
authorities = "{own.authority}"
"""
    folder = tmp_path_factory.mktemp("tls") / "node"
    running = GuardedNode(folder=folder, peers=settings)
    with running:
        wait_until(lambda: "engine.verified" in running.log(), "the engine is verified")
        yield running


def echoscu_status(node: GuardedNode, papers: Papers) -> int:
    """Run dcmtk's echoscu over TLS; return its exit status."""
    tls = ["+tls", papers.key, papers.certificate, "+cf", papers.authority]
    command = ["echoscu", "-to", "5", "-ta", "5", "-aec", "WETREAD", *map(str, tls)]
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
