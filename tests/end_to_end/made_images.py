"""Images made quickly: a data set is encoded once, and what differs is put in."""

from __future__ import annotations

import hashlib
import random
import struct
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.factories import make_ct_series

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"
US: Final = "1.2.840.10008.5.1.4.1.1.6.1"
MULTIFRAME_US: Final = "1.2.840.10008.5.1.4.1.1.3.1"
SOP_CLASSES: Final = (CT, MR, DX, US, MULTIFRAME_US)

STUDY_MARK: Final = b"2.25." + b"1" * 39
SERIES_MARK: Final = b"2.25." + b"2" * 39
INSTANCE_MARK: Final = b"2.25." + b"3" * 39
PATIENT_MARK: Final = b"PATIENT-MARK"
NUMBER_MARK: Final = b"+77777"
PLACE_MARK: Final = b"-77777.777"
"""Values of a prototype that each image has its own of, of the same length; no UID holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One instance: its data set in Explicit VR Little Endian, exactly as it travels."""

    sop_class_uid: str
    sop_instance_uid: str
    data_set: bytes

    @property
    def key(self) -> tuple[str, bytes]:
        """SOP Instance UID, and SHA-256 of the data set."""
        return self.sop_instance_uid, hashlib.sha256(self.data_set).digest()

    def altered(self, chance: random.Random) -> Image:
        """Return other pixels under the same SOP Instance UID."""
        return replace(self, data_set=self.data_set[:-64] + chance.randbytes(64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a modality sends: `pixels` are handed out as they are, or None for random ones."""

    modality: str
    sop_class_uid: str
    rows: int
    columns: int
    frames: int = 1
    description: str = "Load"

    @property
    def pixel_bytes(self) -> int:
        """Bytes of Pixel Data, 16 bits a pixel."""
        return self.rows * self.columns * self.frames * 2


class Prototype:
    """The data set of a kind up to Pixel Data, encoded once, with marks for what differs."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        with tempfile.TemporaryDirectory() as folder:
            paths = make_ct_series(Path(folder), slices=3, rows=kind.rows, columns=kind.columns)
            data_set = dcmread(paths[1])
        self.pixels = data_set.PixelData * kind.frames
        del data_set.PixelData
        data_set.StudyInstanceUID = STUDY_MARK.decode()
        data_set.SeriesInstanceUID = SERIES_MARK.decode()
        data_set.SOPInstanceUID = INSTANCE_MARK.decode()
        data_set.PatientID = data_set.AccessionNumber = PATIENT_MARK.decode()
        data_set.InstanceNumber = NUMBER_MARK.decode()
        x, y, _ = data_set.ImagePositionPatient
        data_set.ImagePositionPatient = [x, y, PLACE_MARK.decode()]
        data_set.SOPClassUID, data_set.Modality = kind.sop_class_uid, kind.modality
        data_set.SeriesDescription = kind.description
        if kind.frames > 1:
            data_set.NumberOfFrames = kind.frames
        encoded = DicomBytesIO()
        encoded.is_little_endian, encoded.is_implicit_VR = True, False
        write_dataset(encoded, data_set)
        length = struct.pack("<I", kind.pixel_bytes)
        self.header = encoded.getvalue() + b"\xe0\x7f\x10\x00OW\x00\x00" + length


class Study:
    """A study that is being acquired: images one after the other, series by series."""

    def __init__(self, prototype: Prototype, chance: random.Random) -> None:
        self.prototype = prototype
        self.study_instance_uid = _uid(chance)
        self._chance = chance
        self._patient = f"P-{chance.randrange(10**9):010d}".encode()
        self.next_series()

    def next_series(self) -> None:
        """Go on with another series."""
        header = self.prototype.header.replace(STUDY_MARK, self.study_instance_uid.encode())
        header = header.replace(SERIES_MARK, _uid(self._chance).encode())
        self._header = header.replace(PATIENT_MARK, self._patient)
        self._number = 0

    def image(self, pixels: bytes | None = None) -> Image:
        """Return the next image; without pixels it gets random ones."""
        self._number += 1
        sop_instance_uid = _uid(self._chance)
        header = self._header.replace(INSTANCE_MARK, sop_instance_uid.encode())
        header = header.replace(NUMBER_MARK, f"{self._number:<6d}".encode())
        header = header.replace(PLACE_MARK, f"{self._number * 5.0:<10.3f}".encode())
        kind = self.prototype.kind
        return Image(
            sop_class_uid=kind.sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            data_set=header + (pixels or self._chance.randbytes(kind.pixel_bytes)),
        )


def _uid(chance: random.Random) -> str:
    return f"2.25.{chance.randrange(10**38, 3 * 10**38)}"
