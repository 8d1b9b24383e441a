"""Values of fields, by every way that a rule may name one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.field_values import FieldValuesError, read_values
from node.fields import FieldError, parse_field
from tests.factories import make_ct_series


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path,) = make_ct_series(tmp_path, slices=1, rows=16, columns=16)
    dataset = dcmread(path)
    first, second = Dataset(), Dataset()
    first.ScheduledProcedureStepID, second.ScheduledProcedureStepID = "A", "B"
    dataset.RequestAttributesSequence = [first, second]
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x27, "SH", "/1.375:1")
    dataset.PatientComments = ""
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Modality", ("CT",)),
        ("0008,0060", ("CT",)),
        ("RequestAttributesSequence.ScheduledProcedureStepID", ("A", "B")),
        ("RequestAttributesSequence[1].ScheduledProcedureStepID", ("B",)),
        ("RequestAttributesSequence[9].ScheduledProcedureStepID", None),
        ("RequestAttributesSequence", ("item", "item")),
        ("ImageOrientationPatient[0]", (1.0,)),
        ("0043,GEMS_PARM_01,27", ("/1.375:1",)),
        ("0043,OTHER,27", None),
        ("PatientComments", ()),
        ("ProtocolName.CodeValue", None),
        ("ContrastBolusAgent", None),
    ],
)
def test_field_is_found_absent_or_empty(
    field: str, expected: tuple[object, ...] | None, file: Path
) -> None:
    assert read_values(file, [field])[field] == expected


def test_file_that_is_no_dicom_is_told_by_the_kind_of_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"DOE^JANE")
    with pytest.raises(FieldValuesError) as caught:
        read_values(path, ["Modality"])
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "Modalty", "0008-0060", "Modality..X", "x" * 600, "0042,A,27"]
)
def test_field_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(FieldError):
        parse_field(text)


def test_misspelt_keyword_is_told_what_may_be_meant() -> None:
    with pytest.raises(FieldError, match="Modality"):
        parse_field("Modalty")


def test_value_of_a_wrong_length_is_told_and_does_not_escape(file: Path) -> None:
    content = file.read_bytes()
    right = b"\x28\x00\x00\x01US\x02\x00\x10\x00"  # (0028,0100) Bits Allocated
    assert right in content
    file.write_bytes(content.replace(right, b"\x28\x00\x00\x01US\x01\x00\x10"))
    with pytest.raises(FieldValuesError):
        read_values(file, ["BitsAllocated"])
