"""The file meta group that is put before received data sets, compared with pydicom's."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from node.file_meta import PREAMBLE, part10_prefix
from node.interfaces import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"]


@pytest.mark.parametrize("instance", ["1.2", "1.23", "2.25." + "1" * 59, "2.25." + "1" * 58])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_prefix_is_what_pydicom_writes(instance: str, syntax: str) -> None:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(CT)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = DicomBytesIO()
    buffer.write(PREAMBLE)
    write_file_meta_info(buffer, meta, enforce_standard=True)
    assert part10_prefix(CT, instance, syntax) == buffer.getvalue()


def test_prefix_alone_is_a_file_without_data_set() -> None:
    found = dcmread(io.BytesIO(part10_prefix(CT, "1.2.3", SYNTAXES[1])))
    assert found.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert len(found) == 0
