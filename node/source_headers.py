"""Headers of the instances that results refer to. Sandbox only: this parses untrusted bytes.

Patient, study and series are told by the first instance of each series, so that one is read whole.
Of the others, which can be thousands, only what tells them apart is walked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from engines.images import InstanceFile
from engines.plain_headers import read_plain_elements
from node.field_values import read_dataset

OWN_KEYWORDS: Final = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "PositionReferenceIndicator",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""What is read of every instance."""
_CHARACTER_SET: Final = Tag("SpecificCharacterSet")
_PER_FRAME: Final = Tag("PerFrameFunctionalGroupsSequence")
_OWN: Final = {int(Tag(keyword)): Tag(keyword) for keyword in OWN_KEYWORDS}
_WALKED: Final = frozenset({*_OWN, int(_PER_FRAME)})


def read_sources(files: Sequence[InstanceFile]) -> tuple[Dataset, ...]:
    """Read headers without pixel data: whole of the first instance of a series, and multi-frame.

    Raises:
        FieldValuesError: one cannot be read; the message names the kind of error.
    """
    series: set[object] = set()
    headers = []
    for file in files:
        header = _own(file)
        if header is None or header.get("SeriesInstanceUID") not in series:
            header = read_dataset(file.path, file.offset, file.length)
            series.add(header.get("SeriesInstanceUID"))
        headers.append(header)
    return tuple(headers)


def _own(file: InstanceFile) -> Dataset | None:
    """Read what tells an instance apart; None where the header is not plain, or has frames."""
    found = read_plain_elements(file, _WALKED)
    if found is None or int(_PER_FRAME) in found.values:
        return None
    header = Dataset(
        {
            _OWN[tag]: RawDataElement(
                _OWN[tag], vr.decode("ascii") or None, len(value), value, 0, found.implicit, True
            )
            for tag, (vr, value) in found.values.items()
        }
    )
    header.set_original_encoding(found.implicit, True, convert_encodings(None))
    if _CHARACTER_SET in header:
        encodings = convert_encodings(header.SpecificCharacterSet)
        header.set_original_encoding(found.implicit, True, encodings)
    return header
