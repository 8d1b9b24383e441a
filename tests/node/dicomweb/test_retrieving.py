"""WADO-RS over real sockets: files byte for byte, metadata, frames, pictures, bulk data."""

from __future__ import annotations

import io
import ssl
from pathlib import Path

import httpx
import numpy as np
import pytest
import structlog
from dicomweb_client import DICOMwebClient
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from tests.end_to_end.papers import authority, issued
from tests.factories import make_ct_series
from tests.node.dicomweb.planted import PlantedWeb, report

SLICES = 3
LONG = bytes(range(256)) * 16


def nested(dataset: Dataset, _index: int) -> None:
    """Give long values at the top and in an item, and numbers that JSON does not have."""
    dataset.add_new(0x00091010, "OB", LONG)
    dataset.add_new(0x00090010, "LO", "TESTS")
    item = Dataset()
    item.add_new(0x00091011, "UN", LONG[::-1])
    item.add_new(0x00091012, "FD", [1.5, float("nan")])
    dataset.ReferencedImageSequence = [Dataset(), item]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_ct_series(tmp_path / "ct", slices=SLICES, rows=17, columns=16, modify=nested)


@pytest.fixture
def study(web: PlantedWeb, files: list[Path]) -> str:
    web.receive(files)
    uid = str(dcmread(files[0]).StudyInstanceUID)
    web.make(uid, [report(uid, name="Müller^Änne=山田^太郎")])
    return uid


def place(file: Path) -> tuple[str, str, str]:
    found = dcmread(file, stop_before_pixels=True)
    return found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPInstanceUID


def path_of(file: Path) -> str:
    study, series, instance = place(file)
    return f"/studies/{study}/series/{series}/instances/{instance}"


def test_a_study_comes_whole_with_its_results(
    web: PlantedWeb, study: str, files: list[Path]
) -> None:
    found = {item.SOPInstanceUID: item for item in web.client().retrieve_study(study)}
    for file in files:
        sent = dcmread(file)
        assert found.pop(sent.SOPInstanceUID).to_json() == sent.to_json()
    [made] = found.values()
    assert made.PatientName.ideographic == "山田^太郎"


def test_an_instance_is_given_byte_for_byte_behind_our_file_meta(
    web: PlantedWeb, study: str, files: list[Path]
) -> None:
    del study
    address = web.serve() + path_of(files[0])
    answer = httpx.get(address, headers={"Accept": "application/dicom"})
    assert answer.headers["content-type"] == "application/dicom"
    data = files[0].read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    assert answer.content.endswith(data[start:])
    assert answer.content[:132] == bytes(128) + b"DICM"
    series = httpx.get(address.rpartition("/instances")[0])
    assert series.headers["content-type"].startswith('multipart/related; type="application/dicom"')


def test_metadata_has_every_attribute_and_names_long_values_by_an_address_that_works(
    web: PlantedWeb, study: str, files: list[Path]
) -> None:
    client = web.client()
    found = {item["00080018"]["Value"][0]: item for item in client.retrieve_study_metadata(study)}
    assert len(found) == SLICES + 1
    told = found[place(files[0])[2]]
    assert told["00280010"]["Value"] == [17]
    inner = told["00081140"]["Value"][1]
    assert inner["00091012"]["Value"] == [1.5, None]
    for element, wanted in (
        (told["00091010"], LONG),
        (inner["00091011"], LONG[::-1]),
        (told["7FE00010"], dcmread(files[0]).PixelData),
    ):
        [part] = client.retrieve_bulkdata(element["BulkDataURI"])
        assert part == wanted
    made = found[f"{study}.9.1"]
    assert made["00080005"]["Value"] == ["ISO_IR 192"]
    assert made["00100010"]["Value"][0]["Ideographic"] == "山田^太郎"
    read = Dataset.from_json(made)
    assert read.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_frames_are_the_pixels(web: PlantedWeb, study: str, files: list[Path]) -> None:
    del study
    client = web.client()
    [frame] = client.retrieve_instance_frames(*place(files[1]), frame_numbers=[1])
    assert frame == dcmread(files[1]).PixelData
    address = client.base_url + path_of(files[1])
    assert httpx.get(f"{address}/frames/2").status_code == 404
    assert httpx.get(f"{address}/frames/0").status_code == 404
    assert httpx.get(f"{address}/frames/x").status_code == 400
    single = httpx.get(f"{address}/frames/1", headers={"Accept": "application/octet-stream"})
    assert single.content == frame


@pytest.mark.parametrize(
    ("syntax", "kind"), [(RLELossless, "image/dicom-rle"), (JPEGLSLossless, "image/jls")]
)
def test_compressed_frames_go_as_they_are_where_that_is_taken_and_decoded_where_not(
    syntax: str, kind: str, web: PlantedWeb, files: list[Path], tmp_path: Path
) -> None:
    sent = dcmread(files[0])
    plain = sent.PixelData
    sent.compress(syntax, generate_instance_uid=False)
    file = tmp_path / "compressed.dcm"
    sent.save_as(file)
    web.receive([file])
    address = f"{web.serve()}{path_of(file)}"
    any_syntax = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    kept = httpx.get(f"{address}/frames/1", headers={"Accept": any_syntax})
    assert f"Content-Type: {kind}; transfer-syntax={syntax}".encode() in kept.content
    octets = 'multipart/related; type="application/octet-stream"'
    decoded = httpx.get(f"{address}/frames/1", headers={"Accept": octets})
    assert plain in decoded.content
    assert b"transfer-syntax=1.2.840.10008.1.2.1\r\n" in decoded.content
    explicit = "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
    assert httpx.get(address, headers={"Accept": explicit}).status_code == 406
    assert httpx.get(address, headers={"Accept": "application/dicom"}).status_code == 200


def test_pictures_show_the_frame_in_its_window_or_another(
    web: PlantedWeb, study: str, files: list[Path]
) -> None:
    del study
    client: DICOMwebClient = web.client()
    png = client.retrieve_instance_rendered(*place(files[1]), media_types=("image/png",))
    shown = np.asarray(Image.open(io.BytesIO(png)))
    assert shown.shape == (17, 16)
    assert len(np.unique(shown)) > 2
    address = client.base_url + path_of(files[1])
    narrow = httpx.get(
        f"{address}/rendered", params={"window": "0,1,linear", "accept": "image/png"}
    )
    assert set(np.unique(np.asarray(Image.open(io.BytesIO(narrow.content))))) <= {0, 255}
    small = httpx.get(
        f"{address}/frames/1/rendered", params={"viewport": "8,8"}, headers={"Accept": "image/jpeg"}
    )
    picture = Image.open(io.BytesIO(small.content))
    assert picture.format == "JPEG"
    assert max(picture.size) == 8
    assert httpx.get(f"{address}/thumbnail").status_code == 200
    assert httpx.get(f"{address}/rendered", params={"window": "nan,1"}).status_code == 400
    assert httpx.get(f"{address}/frames/9/rendered").status_code == 404


def test_what_is_no_image_is_no_picture(web: PlantedWeb, study: str) -> None:
    address = f"{web.serve()}/studies/{study}/series/{study}.9/instances/{study}.9.1"
    assert httpx.get(f"{address}/rendered").status_code == 406
    assert httpx.get(f"{address}/frames/1").status_code == 404


def test_pixel_data_that_is_too_short_is_refused_and_the_node_lives(
    web: PlantedWeb, tmp_path: Path
) -> None:
    """T20: no frame is made up."""

    def cut(dataset: Dataset, _index: int) -> None:
        dataset.Rows = 4000

    (file,) = make_ct_series(tmp_path / "cut", slices=1, rows=16, columns=16, modify=cut)
    web.receive([file])
    address = web.serve() + path_of(file)
    assert httpx.get(f"{address}/frames/1").status_code == 404
    assert httpx.get(f"{address}/rendered").status_code == 406
    assert len(httpx.get(f"{address}/metadata").json()) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/studies/..%2f..%2fetc",
        "/studies/%2e%2e/secret",
        "/studies/1.2.3/series/..%2f..%2f/instances",
        "/studies/x",
        "/studies/" + "1" * 65,
        "/studies/1.2.3",
        "/studies/1.2.3/metadata",
        "/studies/1.2.3/series/1.2.4/instances/1.2.5/bulkdata/../../x",
        "/studies/1.2.3/series/1.2.4/instances/1.2.5/bulkdata/7FE00010/x",
        "/studies/1%00.2",
        "/nothing",
    ],
)
def test_addresses_of_nothing_are_refused(path: str, web: PlantedWeb) -> None:
    """T36: path UIDs with `..%2f`."""
    assert httpx.get(web.serve() + path).status_code in {400, 404}


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("", "text/html"),
        ("", 'multipart/related; type="application/dicom+xml"'),
        ("/metadata", 'multipart/related; type="application/dicom+xml"'),
        ("/metadata", "text/html"),
        ("/frames/1", "text/html"),
        ("/rendered", "image/gif"),
    ],
)
def test_what_is_not_there_in_that_form_is_not_acceptable(
    path: str, accept: str, web: PlantedWeb, study: str, files: list[Path]
) -> None:
    """T36: Accept tricks."""
    del study
    address = web.serve() + path_of(files[0])
    assert httpx.get(address + path, headers={"Accept": accept}).status_code == 406
    odd = ',;"' * 3000
    assert httpx.get(address + path, headers={"Accept": odd}).status_code in {200, 406}


def test_nothing_can_be_changed(web: PlantedWeb, study: str) -> None:
    address = web.serve()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert httpx.request(method, f"{address}/studies/{study}").status_code == 405
        assert httpx.request(method, f"{address}/studies").status_code == 405


def test_users_are_asked_for_and_the_log_holds_no_patient(
    web: PlantedWeb, study: str, tmp_path: Path
) -> None:
    """T32, T38: nothing without credentials; neither names nor search keys stand in the log."""
    password, token = tmp_path / "password", tmp_path / "token"
    password.write_text("correct horse\n")
    token.write_text("abc123\n")
    users = [
        {"name": "viewer", "password_file": password},
        {"name": "archive", "token_file": token},
    ]
    with structlog.testing.capture_logs() as lines:
        address = web.serve(users=users)
        query = f"{address}/studies?PatientName=Phantom*"
        refused = httpx.get(query)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert httpx.get(query, auth=("viewer", "wrong")).status_code == 401
        assert httpx.get(query, auth=("archive", "abc123")).status_code == 401
        assert httpx.get(query, headers={"Authorization": "Bearer x"}).status_code == 401
        assert httpx.get(query, headers={"Authorization": "Basic !"}).status_code == 401
        assert len(httpx.get(query, auth=("viewer", "correct horse")).json()) == 1
        bearer = {"Authorization": "Bearer abc123"}
        assert httpx.get(f"{address}/studies/{study}", headers=bearer).status_code == 200
    assert "Phantom" not in str(lines)
    assert {line["user"] for line in lines if "user" in line} == {"viewer", "archive"}


def test_without_users_only_loopback_names_are_answered(web: PlantedWeb, study: str) -> None:
    """A page that had its own name bound to loopback would read everything."""
    del study
    answer = httpx.get(f"{web.serve()}/studies", headers={"Host": "evil.example"})
    assert answer.status_code == 421


def test_a_viewer_of_a_named_origin_may_ask_from_a_browser(web: PlantedWeb, study: str) -> None:
    del study
    address = f"{web.serve(origins=['https://viewer.example'])}/studies"
    allowed = httpx.get(address, headers={"Origin": "https://viewer.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example"
    other = httpx.get(address, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    asked = httpx.options(
        address,
        headers={
            "Origin": "https://viewer.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert asked.status_code == 200


def test_over_tls_addresses_begin_with_https(web: PlantedWeb, study: str, tmp_path: Path) -> None:
    ours = authority(tmp_path / "papers")
    papers = issued(ours, "node")
    address = web.serve(tls={"certificate": papers.certificate, "key": papers.key})
    context = ssl.create_default_context(cafile=ours.certificate)
    [found] = httpx.get(f"{address}/studies", verify=context).json()
    assert found["00081190"]["Value"] == [f"{address}/studies/{study}"]
    assert address.startswith("https://")


def test_bytes_that_retention_erased_are_gone(
    web: PlantedWeb, study: str, files: list[Path]
) -> None:
    del study
    address = web.serve() + path_of(files[0])
    [held] = web.holdings.instances(*place(files[0]))
    assert held.location is not None
    web.stores.packs.path(held.location).unlink()
    assert httpx.get(address).status_code == 410
    assert httpx.get(f"{address}/metadata").json() == []
