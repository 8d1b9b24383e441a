"""Synthetic CT, MR and DX images to send, each instance with UIDs of its own.

An image is made once and written to a file; a sender maps it and puts the UIDs of the next
instance over those of the last, which are as long. So no file is written while a bench runs, and
no server ever sees an instance twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

TRANSFER_SYNTAX: Final = "1.2.840.10008.1.2.1"  # Explicit VR Little Endian
IMPLEMENTATION_CLASS_UID: Final = "2.25.313862479165077894235670164205718396212"
TOKEN_BITS: Final = 80
STUDY, SERIES = 900_000_000_000, 910_000_000_000
"""Numbers of a study's and a series' UID: no association sends so many instances."""
PER_ASSOCIATION: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of image: `rows` by `columns` of 16 bits, `count` instances in a run by default."""

    modality: str
    sop_class_uid: UID
    rows: int
    columns: int
    count: int
    quick_count: int
    special: Mapping[str, object]


KINDS: Final[Mapping[str, Kind]] = {
    "ct": Kind(
        modality="CT",
        sop_class_uid=CTImageStorage,
        rows=512,
        columns=512,
        count=500,
        quick_count=200,
        special={
            "ScanOptions": "HELIX",
            "KVP": "120",
            "DataCollectionDiameter": "500",
            "ReconstructionDiameter": "360",
            "DistanceSourceToDetector": "1085.6",
            "DistanceSourceToPatient": "595",
            "GantryDetectorTilt": "0",
            "TableHeight": "153",
            "RotationDirection": "CW",
            "ExposureTime": "500",
            "XRayTubeCurrent": "240",
            "Exposure": "120",
            "FilterType": "FLAT",
            "GeneratorPower": "36",
            "FocalSpots": ["1.2", "1.2"],
            "ConvolutionKernel": "Br40f",
            "RescaleIntercept": "-1024",
            "RescaleSlope": "1",
            "RescaleType": "HU",
        },
    ),
    "mr": Kind(
        modality="MR",
        sop_class_uid=MRImageStorage,
        rows=256,
        columns=256,
        count=1000,
        quick_count=400,
        special={
            "ScanningSequence": "SE",
            "SequenceVariant": "SK",
            "ScanOptions": "FS",
            "MRAcquisitionType": "2D",
            "SequenceName": "tse2d1",
            "RepetitionTime": "3500",
            "EchoTime": "90",
            "NumberOfAverages": "1",
            "ImagingFrequency": "63.87",
            "ImagedNucleus": "1H",
            "EchoNumbers": "1",
            "MagneticFieldStrength": "1.5",
            "SpacingBetweenSlices": "4.4",
            "EchoTrainLength": "15",
            "PercentSampling": "90",
            "PercentPhaseFieldOfView": "100",
            "PixelBandwidth": "190",
            "AcquisitionMatrix": [0, 256, 256, 0],
            "FlipAngle": "150",
        },
    ),
    "dx": Kind(
        modality="DX",
        sop_class_uid=DigitalXRayImageStorageForPresentation,
        rows=2500,
        columns=2048,
        count=40,
        quick_count=10,
        special={
            "KVP": "125",
            "DistanceSourceToDetector": "1800",
            "ExposureTime": "8",
            "XRayTubeCurrent": "250",
            "Exposure": "2",
            "ImagerPixelSpacing": ["0.168", "0.168"],
            "RelativeXRayExposure": "300",
            "ViewPosition": "PA",
            "DetectorType": "DIRECT",
            "DetectorID": "D1",
            "PresentationIntentType": "FOR PRESENTATION",
            "PixelIntensityRelationship": "LOG",
            "PixelIntensityRelationshipSign": -1,
            "BurnedInAnnotation": "NO",
            "LossyImageCompression": "00",
            "RescaleIntercept": "0",
            "RescaleSlope": "1",
            "RescaleType": "US",
            "PresentationLUTShape": "IDENTITY",
        },
    ),
}

SHARED: Final[Mapping[str, object]] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "InstanceCreationDate": "20260102",
    "InstanceCreationTime": "101112.5",
    "StudyDate": "20260102",
    "SeriesDate": "20260102",
    "AcquisitionDate": "20260102",
    "ContentDate": "20260102",
    "StudyTime": "101010",
    "SeriesTime": "101100",
    "AcquisitionTime": "101105",
    "ContentTime": "101112",
    "AccessionNumber": "BENCH-1",
    "Manufacturer": "Bench",
    "InstitutionName": "Bench Hospital",
    "InstitutionAddress": "1 Loopback Lane",
    "ReferringPhysicianName": "Referring^Physician",
    "StationName": "BENCH1",
    "StudyDescription": "Synthetic images to be sent",
    "SeriesDescription": "Synthetic",
    "InstitutionalDepartmentName": "Radiology",
    "PerformingPhysicianName": "Performing^Physician",
    "OperatorsName": "Operator^One",
    "ManufacturerModelName": "Synthesis",
    "PatientName": "Synthetic^Bench",
    "PatientID": "BENCH-1",
    "PatientBirthDate": "19600229",
    "PatientSex": "O",
    "PatientAge": "066Y",
    "PatientSize": "1.75",
    "PatientWeight": "75",
    "PatientComments": "no patient: computed noise",
    "BodyPartExamined": "CHEST",
    "SliceThickness": "5",
    "DeviceSerialNumber": "1",
    "SoftwareVersions": "1.0",
    "ProtocolName": "Synthetic noise",
    "PatientPosition": "HFS",
    "StudyID": "1",
    "SeriesNumber": 1,
    "AcquisitionNumber": 1,
    "InstanceNumber": 1,
    "ImagePositionPatient": ["-180", "-180", "0"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "FrameOfReferenceUID": "2.25.104739215860934176201958472017364920158",
    "PositionReferenceIndicator": "",
    "SliceLocation": "0",
    "ImageComments": "noise",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": ["0.7", "0.7"],
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1500"],
    "WindowCenterWidthExplanation": ["SOFT", "LUNG"],
    "PerformedProcedureStepStartDate": "20260102",
    "PerformedProcedureStepStartTime": "101010",
    "PerformedProcedureStepID": "1",
    "PerformedProcedureStepDescription": "Synthetic",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One image in a DICOM file (PS3.10), and where its UIDs lie.

    `data_set` is the offset of the data set; `study`, `series` and `instance` are the offsets of
    the values of those UIDs in the file, the last also in the file meta.
    """

    kind: str
    path: Path
    length: int
    data_set: int
    sop_class_uid: str
    study: tuple[int, ...]
    series: tuple[int, ...]
    instance: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the data set."""
        return self.length - self.data_set


def new_token() -> int:
    """Return a number that no other run's UIDs hold."""
    return secrets.randbits(TOKEN_BITS)


def uid(token: int, number: int) -> str:
    """Return a UID below 2.25 (PS3.5 B.2) of 43 characters, whatever the two numbers are."""
    return f"2.25.1{token:025d}{number:012d}"


def instance_uid(token: int, association: int, number: int) -> str:
    """Return the SOP Instance UID of an association's instance."""
    return uid(token, association * PER_ASSOCIATION + number)


def make_template(name: str, folder: Path) -> Template:
    """Write one image of a kind to a file in a folder, and say where its UIDs lie."""
    kind = KINDS[name]
    token = new_token()
    study, series, instance = (uid(token, number) for number in (STUDY, SERIES, 0))
    dataset = _dataset(kind)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    path = folder / f"{name}.dcm"
    path.write_bytes(content)
    return Template(
        kind=name,
        path=path,
        length=len(content),
        data_set=144 + int.from_bytes(content[140:144], "little"),
        sop_class_uid=str(kind.sop_class_uid),
        study=_places(content, study),
        series=_places(content, series),
        instance=_places(content, instance),
    )


def put(content: bytearray | memoryview, places: tuple[int, ...], value: str) -> None:
    """Put a UID over those at some places of a file's content."""
    encoded = value.encode("ascii")
    for place in places:
        content[place : place + len(encoded)] = encoded


def write_files(template: Template, folder: Path, *, association: int, count: int) -> list[Path]:
    """Write `count` new instances as files, for senders that read files."""
    folder.mkdir(parents=True)
    token = new_token()
    content = bytearray(template.path.read_bytes())
    put(content, template.study, uid(token, STUDY + association))
    put(content, template.series, uid(token, SERIES + association))
    files = []
    for number in range(count):
        put(content, template.instance, instance_uid(token, association, number))
        files.append(folder / f"{number:06d}.dcm")
        files[-1].write_bytes(content)
    return files


def _places(content: bytes, value: str) -> tuple[int, ...]:
    encoded, found = value.encode("ascii"), []
    place = content.find(encoded)
    while place >= 0:
        found.append(place)
        place = content.find(encoded, place + 1)
    return tuple(found)


def _dataset(kind: Kind) -> Dataset:
    dataset = Dataset()
    for keyword, value in {**SHARED, **kind.special}.items():
        setattr(dataset, keyword, value)
    dataset.Modality = kind.modality
    dataset.SOPClassUID = kind.sop_class_uid
    dataset.Rows, dataset.Columns = kind.rows, kind.columns
    dataset.ProcedureCodeSequence = [_code("X-1", "Synthetic procedure")]
    dataset.RequestAttributesSequence = [_request()]
    block = dataset.private_block(0x0029, "WETREAD BENCH 1.0", create=True)
    block.add_new(0x01, "LO", "private text")
    block.add_new(0x02, "OB", bytes(1024))
    pixels = np.random.default_rng(1).integers(0, 4096, kind.rows * kind.columns, dtype="<u2")
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = kind.sop_class_uid
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    return dataset


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99BENCH", meaning
    return item


def _request() -> Dataset:
    item = Dataset()
    item.RequestedProcedureDescription = "Synthetic procedure"
    item.ScheduledProcedureStepDescription = "Synthetic step"
    item.ScheduledProtocolCodeSequence = [_code("X-2", "Synthetic protocol")]
    item.ScheduledProcedureStepID = item.RequestedProcedureID = "1"
    return item
