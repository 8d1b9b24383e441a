"""Headers as hospitals send them: each a change to a well-made source."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from tests.node.results.building import Headers, Modify, series

TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "AccessionNumber",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
JAPANESE: Final = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def without_type_2(dataset: Dataset, _: int) -> None:
    for keyword in (*TYPE_2, "Manufacturer", "PositionReferenceIndicator", "SeriesNumber"):
        delattr(dataset, keyword)


def sex_unknown(dataset: Dataset, _: int) -> None:
    _force(dataset, "PatientSex", "U")


def japanese(dataset: Dataset, _: int) -> None:
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = JAPANESE
    dataset.StudyDescription = "胸部CT"
    dataset.SeriesDescription = "肺野条件"


def latin(dataset: Dataset, _: int) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Jörg"
    dataset.ReferringPhysicianName = "Ångström^Åsa"


def without_thickness(dataset: Dataset, _: int) -> None:
    del dataset.SliceThickness


def without_body_part(dataset: Dataset, _: int) -> None:
    del dataset.BodyPartExamined


def hostile_text(dataset: Dataset, _: int) -> None:
    _force(dataset, "PatientID", "A\x1b[31m\x07B")
    _force(dataset, "SeriesDescription", "Lung\r\nVERIFIED\u202e BY A PHYSICIAN\x00")
    _force(dataset, "StudyDescription", "x" * 90)
    _force(dataset, "Manufacturer", "M" * 90)


def bad_values(dataset: Dataset, _: int) -> None:
    _force(dataset, "PatientBirthDate", "1960.2.29 ")
    _force(dataset, "StudyTime", "8 o'clock")
    _force(dataset, "PatientAge", "old")
    _force(dataset, "SeriesNumber", "")
    _force(dataset, "TimezoneOffsetFromUTC", "CET")


def empty_where_not_allowed(dataset: Dataset, _: int) -> None:
    """Leave without a value what may be absent but not empty, as de-identified images do."""
    dataset.ClinicalTrialSponsorName = ""
    dataset.ClinicalTrialSubjectID = "1"
    dataset.DeidentificationMethod = ""
    dataset.PatientAge = ""
    half_a_code = Dataset()
    half_a_code.CodeValue = "X"
    dataset.ProcedureCodeSequence = [half_a_code]


def clinical_trial(dataset: Dataset, _: int) -> None:
    dataset.ClinicalTrialSponsorName = "Sponsor"
    dataset.ClinicalTrialProtocolID = "P1"
    dataset.ClinicalTrialSubjectID = "1"


def private_and_nested(dataset: Dataset, _: int) -> None:
    block = dataset.private_block(0x0009, "ACME 1.0", create=True)
    block.add_new(0x01, "UN", b"\x00\x01")
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = "OTHER-1", "TEXT"
    block = other.private_block(0x0009, "ACME 1.0", create=True)
    block.add_new(0x01, "UN", b"\x00\x01")
    dataset.OtherPatientIDsSequence = [other]
    dataset.IssuerOfPatientID = "Hospital"
    dataset.TimezoneOffsetFromUTC = "-0500"


AWKWARD: Final[dict[str, Modify]] = {
    "no Type 2 attributes": without_type_2,
    "Patient's Sex U": sex_unknown,
    "ISO 2022 IR 87": japanese,
    "ISO_IR 100": latin,
    "no Slice Thickness": without_thickness,
    "no Body Part Examined": without_body_part,
    "hostile text": hostile_text,
    "bad values": bad_values,
    "empty where not allowed": empty_where_not_allowed,
    "clinical trial": clinical_trial,
    "private and nested": private_and_nested,
}


def awkward_series(folder: Path, name: str) -> Headers:
    """Make a small series with one awkwardness; the library may warn of it while writing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return series(folder, slices=4, rows=24, columns=20, modify=AWKWARD[name])


def _force(dataset: Dataset, keyword: str, value: str) -> None:
    element = dataset[keyword] if keyword in dataset else _new(keyword)
    dataset[keyword] = DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _new(keyword: str) -> DataElement:
    empty = Dataset()
    setattr(empty, keyword, "")
    return empty[keyword]
