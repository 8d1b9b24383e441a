"""STOW-RS in: what is taken, byte for byte, and how each part and each request is answered."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dicomweb_client import DICOMwebClient
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.interfaces import (
    CannotUnderstand,
    DataSetMismatch,
    IngestError,
    ListenerError,
    OutOfResources,
    TooLarge,
)
from node.listeners.dicomweb import DicomwebListener, DicomwebListenerSettings
from tests.end_to_end.papers import authority, issued
from tests.factories import make_ct_series
from tests.node.listeners.posting import (
    CONTENT_TYPE,
    END,
    body_of,
    listening,
    part,
    post,
    reasons,
    stored,
)
from tests.node.listeners.receiving import KeepingIngest, data_set_bytes, sop_instance_uids


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_ct_series(tmp_path_factory.mktemp("ct"), slices=3, rows=64, columns=64)


@pytest.fixture
def ingest() -> KeepingIngest:
    return KeepingIngest()


@pytest.fixture
def listener(ingest: KeepingIngest) -> Iterator[DicomwebListener]:
    with listening(ingest) as found:
        yield found


def test_the_outside_client_stores_a_study(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    client = DICOMwebClient(listener.address().removesuffix("/studies"))
    answer = client.store_instances([dcmread(file) for file in files])
    kept = [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence]
    assert kept == sop_instance_uids(files)
    assert "FailedSOPSequence" not in answer
    assert set(ingest.kept) == set(kept)
    assert ingest.closed == [False]
    assert [source.listener for source in ingest.opened] == ["dicomweb"]


@pytest.mark.parametrize("size", [1 << 20, 1000, 37])
def test_data_sets_are_kept_byte_for_byte_however_they_are_cut(
    size: int, ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    """NET-06, over the web."""
    body = body_of(files)
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    answer = post(listener, pieces)
    assert (answer.status_code, stored(answer)) == (200, sop_instance_uids(files))
    for file in files:
        assert ingest.kept[str(dcmread(file).SOPInstanceUID)] == data_set_bytes(file)
    assert set(ingest.syntaxes.values()) == {"1.2.840.10008.1.2.1"}


def test_data_that_look_like_a_boundary_are_data(
    ingest: KeepingIngest, listener: DicomwebListener, tmp_path: Path
) -> None:
    def modify(dataset: Dataset, _index: int) -> None:
        dataset.PixelData = b"\r\n--\r\n--x\x00\r\n--y\r\n\r\r\n--" * 50 + b"\r\n"

    (file,) = make_ct_series(tmp_path, slices=1, rows=8, columns=8, modify=modify)
    assert post(listener, body_of([file])).status_code == 200
    assert ingest.kept[str(dcmread(file).SOPInstanceUID)] == data_set_bytes(file)


def test_a_sender_may_ask_for_leave_and_send_many_requests_over_one_connection(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    with httpx.Client() as client:
        for file in files:
            answer = client.post(
                listener.address(),
                content=body_of([file]),
                headers={"Content-Type": CONTENT_TYPE, "Expect": "100-continue"},
            )
            assert answer.status_code == 200
    assert len(ingest.kept) == len(ingest.closed) == len(files)


# ---------------------------------------------------------------- answers for parts


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        (OutOfResources("full"), 0xA700, 503),
        (TooLarge("large"), 0xA700, 503),
        (DataSetMismatch("other"), 0xA900, 409),
        (CannotUnderstand("bad"), 0xC000, 409),
    ],
)
def test_a_refused_part_has_the_reason_that_c_store_would_have(  # noqa: PLR0917 - the case, and who takes it
    error: IngestError,
    reason: int,
    status: int,
    ingest: KeepingIngest,
    listener: DicomwebListener,
    files: list[Path],
) -> None:
    ingest.errors = [error]
    answer = post(listener, body_of(files[:1]))
    assert (answer.status_code, reasons(answer)) == (status, [reason])
    assert ("retry-after" in answer.headers) is (status == 503)
    ingest.errors = [error]
    some = post(listener, body_of(files))
    assert (some.status_code, reasons(some)) == (202, [reason])
    assert stored(some) == sop_instance_uids(files[1:])


def test_without_room_nothing_is_read_and_the_sender_comes_again(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    """NET-10, over the web: congestion is 503 with Retry-After."""
    ingest.no_room = OutOfResources("full")
    answer = post(listener, body_of(files))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert not ingest.opened


@pytest.mark.parametrize(
    ("content", "headers", "reason"),
    [
        (b"", (), 0xC000),
        (b"no DICOM file" * 100, (), 0xC000),
        (bytes(128) + b"DICM", (), 0xC000),
        (bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff" + bytes(70_000), (), 0xC000),
        (
            bytes(128) + b"DICM" + b"\x02\x00\x01\x00OB\x00\x00\xff\xff\xff\xff" + bytes(99),
            (),
            0xC000,
        ),
        (bytes(128) + b"DICM" + b"\x02\x00\x01\x00UL\x00\x00" * 9000, (), 0xC000),
        (b"<xml/>", ("Content-Type: application/dicom+xml",), 0xC000),
    ],
)
def test_a_part_that_is_no_dicom_file_stops_no_other(  # noqa: PLR0917 - the case, and who takes it
    content: bytes,
    headers: tuple[str, ...],
    reason: int,
    ingest: KeepingIngest,
    listener: DicomwebListener,
    files: list[Path],
) -> None:
    """T17, T19: file meta information without an end, and what is none."""
    answer = post(listener, part(content, *headers) + body_of(files[:1]))
    assert (answer.status_code, reasons(answer)) == (202, [reason])
    assert set(ingest.kept) == set(sop_instance_uids(files[:1]))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0", 0x0122),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0", 0xC122),
        (b"1.2.840.10008.1.2.1\0", b"../../etc/passwd\0\0\0\0", 0xC122),
    ],
)
def test_classes_and_transfer_syntaxes_that_are_not_taken_are_named(  # noqa: PLR0917 - the case, and who takes it
    old: bytes,
    new: bytes,
    reason: int,
    ingest: KeepingIngest,
    listener: DicomwebListener,
    files: list[Path],
) -> None:
    """T15: nothing of a part names a file."""
    content = files[0].read_bytes()
    head, data = content[:400], content[400:]
    answer = post(listener, part(head.replace(old, new) + data) + END)
    assert (answer.status_code, reasons(answer)) == (409, [reason])
    assert not ingest.kept


def test_a_preamble_that_is_a_program_is_not_kept(
    ingest: KeepingIngest, listener: DicomwebListener, files: list[Path]
) -> None:
    """T17: what stands before DICM stays behind."""
    content = b"\x7fELF".ljust(128, b"\x90") + files[0].read_bytes()[128:]
    assert post(listener, part(content) + END).status_code == 200
    assert ingest.kept[sop_instance_uids(files)[0]] == data_set_bytes(files[0])


# ---------------------------------------------------------------- who, and where


def test_only_who_shows_credentials_from_the_right_place_may_send(
    ingest: KeepingIngest, files: list[Path], tmp_path: Path
) -> None:
    """T08, over the web."""
    secret = tmp_path / "secret"
    secret.write_text("abc\n")
    users = [
        {"name": "CT1", "password_file": secret, "addresses": ["127.0.0.1"], "urgent": True},
        {"name": "CT2", "password_file": secret, "addresses": ["192.0.2.1"]},
    ]
    with listening(ingest, users=users) as listener:
        for auth, status in (
            (None, 401),
            (("CT1", "wrong"), 401),
            (("CT2", "abc"), 401),
            (("CT1", "abc"), 200),
        ):
            answer = httpx.post(
                listener.address(),
                content=body_of(files[:1]),
                headers={"Content-Type": CONTENT_TYPE},
                auth=auth,
            )
            assert answer.status_code == status
    [source] = ingest.opened
    assert (source.calling_ae, source.peer_address, source.urgent) == ("CT1", "127.0.0.1", True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/dicom-web/studies", 405),
        ("PUT", "/dicom-web/studies", 405),
        ("POST", "/", 404),
        ("POST", "/dicom-web/studies/1.2.3", 404),
        ("POST", "/dicom-web/../etc", 404),
        ("POST", "/dicom-web/studies/..%2f", 404),
    ],
)
def test_other_addresses_and_methods_are_told_apart(
    method: str, path: str, status: int, listener: DicomwebListener
) -> None:
    base = listener.address().removesuffix("/dicom-web/studies")
    assert httpx.request(method, base + path).status_code == status


@pytest.mark.parametrize(
    ("kind", "headers", "status"),
    [
        ("application/dicom", {}, 415),
        ("multipart/form-data; boundary=x", {}, 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', {}, 415),
        ("multipart/related", {}, 400),
        ("multipart/related; boundary=", {}, 400),
        ('multipart/related; boundary="' + "x" * 71 + '"', {}, 400),
        ("multipart/related; boundary=\x01", {}, 400),
        (CONTENT_TYPE, {"Content-Encoding": "gzip"}, 415),
        (CONTENT_TYPE, {"Accept": "application/dicom+xml"}, 406),
    ],
)
def test_what_is_not_taken_in_that_form_is_refused_by_its_head(  # noqa: PLR0917 - the case, and who takes it
    kind: str,
    headers: dict[str, str],
    status: int,
    ingest: KeepingIngest,
    listener: DicomwebListener,
    files: list[Path],
) -> None:
    """T36: a compressed body is not inflated, another media type not guessed at."""
    answer = post(listener, body_of(files), kind=kind, headers=headers)
    assert answer.status_code == status
    assert not ingest.opened


def test_tls_is_spoken_and_nothing_else(
    ingest: KeepingIngest, files: list[Path], tmp_path: Path
) -> None:
    """T07: other authorities, and plain HTTP on the port, are turned away."""
    ours = authority(tmp_path / "papers")
    papers = issued(ours, "node")
    with listening(ingest, tls={"certificate": papers.certificate, "key": papers.key}) as listener:
        good = ssl.create_default_context(cafile=ours.certificate)
        headers = {"Content-Type": CONTENT_TYPE}
        address = listener.address()
        assert address.startswith("https://")
        sent = httpx.post(address, content=body_of(files), headers=headers, verify=good)
        assert sent.status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(address.replace("https", "http"))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(ours.certificate)
        old.set_ciphers("AES128-SHA")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.HTTPError):
            httpx.get(address, verify=old)


def test_a_taken_port_and_a_missing_certificate_are_named(
    ingest: KeepingIngest, listener: DicomwebListener, tmp_path: Path
) -> None:
    port = listener.address().rpartition(":")[2].partition("/")[0]
    second = DicomwebListener(DicomwebListenerSettings(port=int(port)), ingest)
    with pytest.raises(ListenerError, match=f"port {port}"):
        second.start()
    missing = {"certificate": tmp_path / "no", "key": tmp_path / "no"}
    third = DicomwebListener(DicomwebListenerSettings.model_validate({"tls": missing}), ingest)
    with pytest.raises(ListenerError, match=r"listeners\.dicomweb\.tls"):
        third.start()


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "192.0.2.1"},
        {"host": "pacs.example"},
        {"host": "0.0.0.0", "tls": {"certificate": "/c", "key": "/k"}},  # noqa: S104 - refused
        {"users": [{"name": "CT1"}]},
        {"users": [{"name": "C:T", "token_file": "/t"}]},
        {"users": [{"name": "CT1", "token_file": "relative"}]},
        {"tls": {"certificate": "relative", "key": "/k"}},
    ],
)
def test_a_door_that_would_stand_open_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DicomwebListenerSettings.model_validate(settings)
