"""The whole way with the peers a hospital has: dcmtk sends, Orthanc receives, validators judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread

from tests.end_to_end.processes import NodeProcess, Orthanc, storescu
from tests.factories import make_ct_series

FloatArray: TypeAlias = npt.NDArray[np.float64]

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Send a CT by storescu, wait, and fetch what Orthanc holds: (source folder, class -> file)."""
    folder = tmp_path_factory.mktemp("peers")
    files = make_ct_series(folder / "ct", slices=20, rows=128, columns=130)
    study_instance_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with (
        Orthanc(folder=folder / "orthanc") as orthanc,
        NodeProcess(folder=folder / "node", pacs_port=orthanc.dicom_port) as node,
    ):
        storescu(node.port, files)
        node.wait_settled(study_instance_uid)
        studies = orthanc.get("/studies?expand")
        assert [s["MainDicomTags"]["StudyInstanceUID"] for s in studies] == [study_instance_uid]
        results: dict[str, Path] = {}
        for instance in orthanc.get(f"/studies/{studies[0]['ID']}/instances"):
            path = folder / f"{instance['ID']}.dcm"
            path.write_bytes(orthanc.file(instance["ID"]))
            results[str(dcmread(path, stop_before_pixels=True).SOPClassUID)] = path
    return folder / "ct", results


def test_orthanc_holds_seg_and_sr_under_the_source_study(
    delivered: tuple[Path, dict[str, Path]],
) -> None:
    assert set(delivered[1]) == {SEGMENTATION, COMPREHENSIVE_3D_SR, ENHANCED_SR}


@pytest.mark.parametrize("sop_class", [SEGMENTATION, COMPREHENSIVE_3D_SR, ENHANCED_SR])
def test_dciodvfy_reports_no_error(sop_class: str, delivered: tuple[Path, dict[str, Path]]) -> None:
    run = subprocess.run(
        ["dciodvfy", "-new", str(delivered[1][sop_class])],
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in run.stderr.splitlines() if line.startswith("Error")]
    assert errors == []


@pytest.mark.parametrize("sop_class", [COMPREHENSIVE_3D_SR, ENHANCED_SR])
def test_dsrdump_reads_the_report(sop_class: str, delivered: tuple[Path, dict[str, Path]]) -> None:
    run = subprocess.run(
        ["dsrdump", "+Pc", str(delivered[1][sop_class])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "UNVERIFIED" in run.stdout.upper()
    assert "Volume" in run.stdout


def test_dcmqi_reads_the_segmentation_to_the_same_voxels(
    delivered: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    """Compare dcmqi's label volumes with the SEG's own frames, in patient space."""
    source, results = delivered
    subprocess.run(
        [
            str(Path(sys.executable).with_name("segimage2itkimage")),
            "--inputDICOM",
            str(results[SEGMENTATION]),
            "--outputDirectory",
            str(tmp_path),
            "-t",
            "nrrd",
        ],
        check=True,
        capture_output=True,
    )
    dataset = dcmread(results[SEGMENTATION])
    ours = _voxels_by_segment(dataset)
    theirs = _voxels_of_nrrds(sorted(tmp_path.glob("*.nrrd")))
    assert len(list(source.iterdir())) == 20
    assert theirs
    assert ours == theirs


def _voxels_by_segment(dataset: object) -> dict[int, set[tuple[int, int, int]]]:
    """Return, for each segment, its voxel centres in LPS, in hundredths of a millimetre."""
    from pydicom.dataset import Dataset

    assert isinstance(dataset, Dataset)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    rows_mm, columns_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    along_row, along_column = orientation[:3] * columns_mm, orientation[3:] * rows_mm
    voxels: dict[int, set[tuple[int, int, int]]] = {}
    for group, mask in zip(
        dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True
    ):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(mask)
        points = origin + np.outer(column, along_row) + np.outer(row, along_column)
        voxels.setdefault(number, set()).update(_hundredths(points))
    return voxels


def _hundredths(points: FloatArray) -> set[tuple[int, int, int]]:
    return {(int(x), int(y), int(z)) for x, y, z in np.rint(points * 100)}


def _voxels_of_nrrds(files: list[Path]) -> dict[int, set[tuple[int, int, int]]]:
    voxels: dict[int, set[tuple[int, int, int]]] = {}
    for file in files:
        labels, origin, directions = _read_nrrd(file)
        for label in np.unique(labels[labels > 0]):
            indices = np.argwhere(labels == label)[:, ::-1]  # to fastest axis first
            points = origin + indices @ directions
            number = int(label) if len(files) == 1 else int(file.stem.rpartition("-")[2] or label)
            voxels.setdefault(number, set()).update(_hundredths(points))
    return voxels


def _read_nrrd(
    file: Path,
) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Read a gzip or raw NRRD with an attached header; directions are rows, fastest axis first."""
    import gzip

    head, _, body = file.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:] if ": " in line)
    sizes = [int(size) for size in fields["sizes"].split()]
    types = {"short": "<i2", "unsigned short": "<u2", "unsigned char": "u1", "uchar": "u1"}
    content = gzip.decompress(body) if fields["encoding"] == "gzip" else body
    labels = np.frombuffer(content, types[fields["type"]]).reshape(sizes[::-1]).astype(np.int64)

    def vectors(text: str) -> FloatArray:
        return np.array([[float(x) for x in part.strip("()").split(",")] for part in text.split()])

    assert fields["space"] == "left-posterior-superior"
    return labels, vectors(fields["space origin"])[0], vectors(fields["space directions"])
