"""A real node that delivers over the web, and is read over the web by an outside client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from highdicom.seg import Segmentation
from highdicom.sr import Comprehensive3DSR
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.end_to_end.processes import (
    NodeProcess,
    Orthanc,
    free_port,
    listens,
    storescu,
    wait_until,
)
from tests.factories import make_ct_series

SLICES = 12
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


class WebDeliveringNode(NodeProcess):
    """One whose destination is a DICOMweb archive; `pacs_port` is its HTTP port."""

    def configuration(self) -> str:
        """Return the TOML text with that destination."""
        before, _, rest = super().configuration().partition("[destinations.pacs]")
        _, _, after = rest.partition("[completion]")
        url = f"http://127.0.0.1:{self.pacs_port}/dicom-web"
        return f'{before}[destinations.pacs]\nkind = "stow"\nurl = "{url}"\n[completion]{after}'


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the two sides hold at the end, by SOP class."""

    files: list[Path]
    study: str
    node: dict[str, list[Dataset]]
    metadata: list[dict[str, dict[str, object]]]
    archive: dict[str, list[Dataset]]
    log: str


def by_class(found: list[Dataset]) -> dict[str, list[Dataset]]:
    classes: dict[str, list[Dataset]] = {}
    for dataset in found:
        classes.setdefault(str(dataset.SOPClassUID), []).append(dataset)
    return classes


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("web")
    files = make_ct_series(folder / "ct", slices=SLICES, rows=128, columns=130)
    study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    port = free_port()
    with (
        Orthanc(folder=folder / "orthanc", web=True) as orthanc,
        WebDeliveringNode(
            folder=folder / "node",
            pacs_port=orthanc.http_port,
            extra=f"[dicomweb]\nport = {port}\n",
        ) as node,
    ):
        storescu(node.port, files)
        node.wait_settled(study)
        ours = DICOMwebClient(f"http://127.0.0.1:{port}/dicom-web")
        theirs = DICOMwebClient(f"http://127.0.0.1:{orthanc.http_port}/dicom-web")
        yield Told(
            files=files,
            study=study,
            node=by_class(ours.retrieve_study(study)),
            metadata=ours.retrieve_study_metadata(study),
            archive=by_class(theirs.retrieve_study(study)),
            log=node.log(),
        )


def test_results_arrive_at_a_dicomweb_archive(told: Told) -> None:
    """AIR-01: Store Instances Over the Web [RAD-108], by a real node to a real archive."""
    assert {SEGMENTATION, COMPREHENSIVE_3D_SR} <= set(told.archive)
    for sop_class, [sent] in told.archive.items():
        [kept] = told.node[sop_class]
        assert sent == kept
    assert told.log.count('"verdict": "accepted"') == len(told.archive)


def test_the_node_gives_the_study_with_its_segmentation_and_report(told: Told) -> None:
    """AIR-06: images, segmentation and report of a study, read over the web, fit together."""
    images = {item.SOPInstanceUID: item for item in told.node[CT_IMAGE]}
    assert images == {dcmread(file).SOPInstanceUID: dcmread(file) for file in told.files}
    segmentation = Segmentation.from_dataset(told.node[SEGMENTATION][0])
    sources = {uid for _, _, uid in segmentation.get_source_image_uids()}
    assert sources <= set(images)
    assert sources
    report = Comprehensive3DSR.from_dataset(told.node[COMPREHENSIVE_3D_SR][0])
    assert str(segmentation.SOPInstanceUID) in report.to_json()


def test_a_study_posted_over_the_web_is_read_and_given_back_with_its_results(
    tmp_path: Path,
) -> None:
    """The whole way without a C-STORE: STOW-RS in, engine, STOW-RS out, WADO-RS."""
    files = make_ct_series(tmp_path / "ct", slices=SLICES, rows=128, columns=130)
    sent = [dcmread(file) for file in files]
    door, web = free_port(), free_port()
    extra = f"[dicomweb]\nport = {web}\n[listeners.dicomweb]\nport = {door}\n"
    with (
        Orthanc(folder=tmp_path / "orthanc", web=True) as orthanc,
        WebDeliveringNode(
            folder=tmp_path / "node", pacs_port=orthanc.http_port, extra=extra
        ) as node,
    ):
        wait_until(lambda: listens(door), "the door on the web is open")
        sender = DICOMwebClient(f"http://127.0.0.1:{door}/dicom-web")
        reader = DICOMwebClient(f"http://127.0.0.1:{web}/dicom-web")
        study = str(sent[0].StudyInstanceUID)
        answer = sender.store_instances(sent)
        assert len(answer.ReferencedSOPSequence) == SLICES
        assert len(reader.search_for_instances(study)) == SLICES  # at once
        again = sender.store_instances(sent[:1])
        assert len(again.ReferencedSOPSequence) == 1
        node.wait_settled(study)
        found = by_class(reader.retrieve_study(study))
        assert {item.SOPInstanceUID: item for item in found.pop(CT_IMAGE)} == {
            item.SOPInstanceUID: item for item in sent
        }
        assert {SEGMENTATION, COMPREHENSIVE_3D_SR} <= set(found)
        assert len(orthanc.get("/instances")) == sum(map(len, found.values()))


def test_every_instance_that_was_answered_for_survives_a_kill(tmp_path: Path) -> None:
    """T12, over the web: acknowledged is durable."""
    files = make_ct_series(tmp_path / "ct", slices=SLICES, rows=64, columns=64)
    door, web = free_port(), free_port()
    extra = f"[dicomweb]\nport = {web}\n[listeners.dicomweb]\nport = {door}\n"
    with NodeProcess(folder=tmp_path / "node", pacs_port=free_port(), extra=extra) as node:
        wait_until(lambda: listens(door), "the door on the web is open")
        sender = DICOMwebClient(f"http://127.0.0.1:{door}/dicom-web")
        answer = sender.store_instances([dcmread(file) for file in files])
        node.kill()
        told = {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence}
        node.start()
        wait_until(lambda: listens(web), "the node is back")
        reader = DICOMwebClient(f"http://127.0.0.1:{web}/dicom-web")
        study = str(dcmread(files[0]).StudyInstanceUID)
        kept = {item.SOPInstanceUID: item for item in reader.retrieve_study(study)}
    assert told == set(kept)
    assert kept == {dcmread(file).SOPInstanceUID: dcmread(file) for file in files}


def test_metadata_are_told_of_every_instance(told: Told) -> None:
    told_of = [str(item["00080018"]["Value"][0]) for item in told.metadata]  # type: ignore[index]
    held = [str(item.SOPInstanceUID) for found in told.node.values() for item in found]
    assert sorted(told_of) == sorted(held)


def test_the_log_names_no_patient(told: Told) -> None:
    """T38."""
    assert "Phantom" not in told.log
    assert "PHANTOM" not in told.log
