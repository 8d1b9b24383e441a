"""What the demo sends: genuine CT where this machine has any, and a phantom that says it is one."""

from __future__ import annotations

import plistlib
import struct
import tarfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from node.interfaces import Outgoing

Hounsfield: TypeAlias = npt.NDArray[np.int16]

NAMESPACE: Final = uuid.UUID("0f6e3c0a-6c77-5d58-9d0c-3f1a1b8f2f55")
INVESALIUS: Final = Path("/usr/share/doc/invesalius-examples/examples/Cranium.inv3")
SHARED: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
RESCALE_INTERCEPT: Final = -1024
MOST_VOXELS: Final = 512 * 512 * 1000


class DemoDataError(Exception):
    """The data cannot be read; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStudy:
    """One study to send. `genuine` says that the pixels were acquired from a person."""

    name: str
    description: str
    source: str
    genuine: bool
    files: tuple[Path, ...]

    @property
    def study_instance_uid(self) -> str:
        """Return the study's UID, as its first file gives it."""
        return str(dcmread(self.files[0], stop_before_pixels=True).get("StudyInstanceUID", ""))

    def outgoing(self) -> list[Outgoing]:
        """Return the files as a sender needs them."""
        found = (_outgoing(path) for path in self.files)
        return [item for item in found if isinstance(item, Outgoing)]

    def paths(self) -> dict[str, Path]:
        """Return the file of each SOP Instance UID."""
        return {item.sop_instance_uid: item.path for item in self.outgoing()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Volume:
    """HU [slice, row, column], spacing (between slices, rows, columns) in mm, and what it is."""

    name: str
    voxels: Hounsfield
    spacing: tuple[float, float, float]
    patient_name: str
    body_part: str
    series_description: str
    comments: str


def demo_studies(work: Path) -> list[DemoStudy]:
    """Return what the demo sends; files that have to be made are made under `work`."""
    studies = _shared_studies(work)
    if not studies:
        studies = [*_invesalius_study(work), _single_slice_study(), _phantom_study(work)]
    return studies


def folder_study(folder: Path) -> list[DemoStudy]:
    """Return the studies in a folder of DICOM files, by Study Instance UID.

    Files that name no study are one of their own: the node says what is wrong with it.
    """
    by_study: dict[str, list[Path]] = {}
    for item in dicom_files(folder).files:
        uid = str(dcmread(item.path, stop_before_pixels=True).get("StudyInstanceUID", ""))
        by_study.setdefault(uid, []).append(item.path)
    return [
        DemoStudy(
            name=f"study-{number}",
            description=f"{len(files)} files" if uid else f"{len(files)} files of no study",
            source=str(folder),
            genuine=False,
            files=tuple(files),
        )
        for number, (uid, files) in enumerate(by_study.items(), start=1)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFiles:
    """The DICOM files (PS3.10) of a place, and how many others there are, by the reason."""

    files: tuple[Outgoing, ...]
    passed_over: Mapping[str, int]


def dicom_files(place: Path) -> FoundFiles:
    """Look through a folder and those below it, or at one file."""
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    found = [_outgoing(path) for path in paths if path.is_file()]
    return FoundFiles(
        files=tuple(item for item in found if isinstance(item, Outgoing)),
        passed_over=Counter(item for item in found if isinstance(item, str)),
    )


def _outgoing(path: Path) -> Outgoing | str:
    """Return a file as a sender needs it, or why it cannot be sent."""
    try:
        dataset = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        return Outgoing(
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
            path=path,
        )
    except InvalidDicomError:
        return "no DICOM file (PS3.10)"
    except AttributeError:
        return "no SOP Class, SOP Instance or Transfer Syntax UID"
    except OSError as error:
        return f"cannot be read: {error.strerror or type(error).__name__}"
    except (LookupError, NotImplementedError, TypeError, ValueError, struct.error) as error:
        return f"cannot be parsed: {type(error).__name__}"


# ---------------------------------------------------------------- genuine data


def _shared_studies(work: Path) -> list[DemoStudy]:
    """Return chest and abdomen CT from the data folder beside the checkout, if it is there."""
    chest, abdomen = SHARED / "petct_acrin_042" / "ct", SHARED / "ct_abdomen_totalseg"
    studies = []
    if chest.is_dir():
        studies.append(
            DemoStudy(
                name="chest-ct",
                description="chest CT of a PET/CT, lung cancer, JPEG-LS",
                source="TCIA ACRIN-NSCLC-FDG-PET, CC BY 3.0",
                genuine=True,
                files=tuple(sorted(chest.glob("*.dcm"))),
            )
        )
    if abdomen.is_dir():
        studies.append(
            DemoStudy(
                name="abdomen-ct",
                description="upper abdomen CT, JPEG 2000; UIDs that were blanked are filled in",
                source="TotalSegmentator test data, Apache-2.0",
                genuine=True,
                files=_with_uids(sorted(abdomen.glob("*.dcm")), work / "abdomen-ct"),
            )
        )
    return studies


def _with_uids(files: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Copy files whose UIDs were blanked by anonymisation, with UIDs that belong together."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for file in files:
        dataset = dcmread(file)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID = dataset.StudyInstanceUID or _uid(folder.name, "study")
        dataset.SeriesInstanceUID = dataset.SeriesInstanceUID or _uid(folder.name, "series")
        target = folder / file.name
        dataset.save_as(target, enforce_file_format=True)
        made.append(target)
    return tuple(made)


def _invesalius_study(work: Path) -> list[DemoStudy]:
    """Return the head CT of Debian's package invesalius-examples, wrapped as CT images."""
    if not INVESALIUS.is_file():
        return []
    volume = _read_invesalius(INVESALIUS)
    return [
        DemoStudy(
            name=volume.name,
            description="head CT, 108 slices, from a Debian package",
            source="Debian invesalius-examples, GPL-2",
            genuine=True,
            files=_write(volume, work / volume.name),
        )
    ]


def _read_invesalius(path: Path) -> _Volume:
    """Read an InVesalius project: a tar file with a property list and a raw matrix.

    Raises:
        DemoDataError: the file is not what the package is known to hold.
    """
    try:
        with tarfile.open(path) as archive:
            members = {Path(item.name).name: item for item in archive.getmembers()}
            plist = archive.extractfile(members["main.plist"])
            matrix = archive.extractfile(members["matrix.dat"])
            if plist is None or matrix is None:
                raise DemoDataError(f"{path}: has no matrix")
            project = plistlib.load(plist)
            shape = tuple(int(size) for size in project["matrix"]["shape"])
            raw = matrix.read(2 * MOST_VOXELS)
        voxels = np.frombuffer(raw, dtype="<i2").reshape(shape)
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise DemoDataError(f"{path}: {type(error).__name__}") from error
    columns_mm, rows_mm, slices_mm = (float(size) for size in project["spacing"])
    return _Volume(
        name="head-ct",
        voxels=voxels[:, ::-1, :].astype(np.int16),
        spacing=(slices_mm, rows_mm, columns_mm),
        patient_name="INVESALIUS^CRANIUM",
        body_part="HEAD",
        series_description="Head CT from invesalius-examples",
        comments="Acquired CT, wrapped from an InVesalius project; its left and right are not "
        "given by the source and are assumed.",
    )


def _single_slice_study() -> DemoStudy:
    """Return the CT slice that comes with pydicom."""
    path = get_testdata_file("CT_small.dcm", read=False, download=False)
    if not isinstance(path, str):
        raise DemoDataError("pydicom came without its test file CT_small.dcm")
    return DemoStudy(
        name="single-slice-ct",
        description="one CT slice, 128 x 128, from pydicom's wheel",
        source="pydicom test data, MIT",
        genuine=True,
        files=(Path(path),),
    )


# ---------------------------------------------------------------- the phantom


def _phantom_study(work: Path) -> DemoStudy:
    volume = _Volume(
        name="phantom-chest",
        voxels=_phantom(slices=48, size=256),
        spacing=(5.0, 1.5, 1.5),
        patient_name="PHANTOM^CHEST",
        body_part="CHEST",
        series_description="Phantom chest, computed",
        comments="Computed phantom: ellipses of fat, soft tissue, lung and bone. No patient.",
    )
    return DemoStudy(
        name=volume.name,
        description="a computed phantom of ellipses, 48 slices; says so in its header",
        source="made by this program",
        genuine=False,
        files=_write(volume, work / volume.name),
    )


def _phantom(*, slices: int, size: int) -> Hounsfield:
    """Draw a chest: body, soft tissue, two lungs, spine and table, in HU [slice, row, column]."""
    row, column = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    noise = np.random.default_rng(7).normal(0, 8, (slices, size, size))
    volume = np.empty((slices, size, size), dtype=np.int16)

    def ellipse(y: float, x: float, height: float, width: float) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = ((row - y) / height) ** 2 + ((column - x) / width) ** 2 < 1
        return inside

    for index in range(slices):
        lung = 0.32 * np.sin(np.pi * (index + 0.5) / slices)
        image = np.full((size, size), -1000.0)
        image[ellipse(0, 0, 0.55, 0.8)] = -100
        image[ellipse(0, 0, 0.47, 0.7)] = 45
        image[ellipse(-0.02, -0.34, lung, 0.24)] = -820
        image[ellipse(-0.02, 0.34, lung, 0.24)] = -820
        image[ellipse(0.33, 0, 0.1, 0.1)] = 450
        image[int(size * 0.88) : int(size * 0.9), size // 6 : -size // 6] = -200
        volume[index] = np.clip(image + noise[index], -1024, 3071).astype(np.int16)
    return volume


# ---------------------------------------------------------------- volumes to files


def _write(volume: _Volume, folder: Path) -> tuple[Path, ...]:
    """Write a volume as a series of CT images, feet first slice last (PS3.3 A.3)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(volume.voxels.shape[0]):
        path = folder / f"{index + 1:04d}.dcm"
        _image(volume, index).save_as(path, enforce_file_format=True)
        paths.append(path)
    return tuple(paths)


def _image(volume: _Volume, index: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(_uid(volume.name, "instance", str(index)))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    _describe(image, volume)
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.InstanceNumber = index + 1
    _place(image, volume, index)
    stored = volume.voxels[index].astype(np.int32) - RESCALE_INTERCEPT
    image.PixelData = np.clip(stored, 0, 4095).astype("<u2").tobytes()
    return image


def _describe(image: FileDataset, volume: _Volume) -> None:
    image.PatientName = volume.patient_name
    image.PatientID = f"DEMO-{volume.name}"
    image.PatientBirthDate = ""
    image.PatientSex = ""
    image.StudyInstanceUID = _uid(volume.name, "study")
    image.SeriesInstanceUID = _uid(volume.name, "series")
    image.FrameOfReferenceUID = _uid(volume.name, "frame of reference")
    image.PositionReferenceIndicator = ""
    image.StudyDate = image.SeriesDate = image.ContentDate = "20260101"
    image.StudyTime = image.SeriesTime = image.ContentTime = "120000"
    image.AcquisitionDate, image.AcquisitionTime = "", ""
    image.AccessionNumber, image.StudyID, image.ReferringPhysicianName = "", "DEMO", ""
    image.StudyDescription = volume.series_description
    image.SeriesDescription = volume.series_description
    image.ImageComments = volume.comments
    image.Modality = "CT"
    image.BodyPartExamined = volume.body_part
    image.Manufacturer = "wetread demo data"
    image.ManufacturerModelName = "wetread demo data"
    image.SeriesNumber = 1
    image.AcquisitionNumber = 1
    image.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    image.PatientPosition = "HFS"
    image.KVP = None


def _place(image: FileDataset, volume: _Volume, index: int) -> None:
    slices_mm, rows_mm, columns_mm = volume.spacing
    image.SliceThickness = slices_mm
    image.PixelSpacing = [rows_mm, columns_mm]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [0, 0, round(index * slices_mm, 4)]
    image.Rows, image.Columns = volume.voxels.shape[1:]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.RescaleIntercept, image.RescaleSlope = RESCALE_INTERCEPT, 1
    image.RescaleType = "HU"
    image.WindowCenter, image.WindowWidth = 40, 400


def _uid(*parts: str) -> str:
    return f"2.25.{uuid.uuid5(NAMESPACE, '|'.join(parts)).int}"
