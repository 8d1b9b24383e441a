"""Headers of source instances, made fit to be copied (OBJ-01, OBJ-03).

The patient's and the study's attributes go into every result as they came, decoded to Unicode.
Only what no valid object may hold is left out: control characters, dates and ages that are none, a
Patient's Sex that is none of the enumerated values.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeAlias

from highdicom import _standard_utils as standard
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from engines.images import SourceFrame
from node.interfaces import ResultContext, ResultError
from node.results._iod import TYPE_2_MISSING, module_faults
from node.results._text import clean, without_controls

PATIENT_AND_STUDY: Final = (
    "patient",
    "clinical-trial-subject",
    "general-study",
    "patient-study",
    "clinical-trial-study",
)
EMPTY_IF_UNKNOWN: Final = (  # Type 2 of Patient and General Study (PS3.3 C.7.1.1, C.7.2.1)
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
TRIAL: Final = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")  # Type 1 (PS3.3 C.7.1.3)
UNREADABLE: Final = (ValueError, TypeError, ArithmeticError, AttributeError, NotImplementedError)
_FORMATS: Final = {
    "AS": re.compile(r"\d{3}[DWMY]"),
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)? *"),
    "DT": re.compile(r"\d{4}(\d{2}){0,5}(\.\d{1,6})?([+-]\d{4})? *"),
}
_TEXTS: Final = ("ST", "LT", "UT")
_STRINGS: Final = ("AE", "AS", "CS", "LO", "PN", "SH", "UC", "UI", "UR")

Headers: TypeAlias = Mapping[str, Dataset]

_Value: TypeAlias = object


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Give a result the patient and the study of its source, and nothing else of either.

    Empty attributes are not copied but where they must stand, nor is a clinical trial without what
    its module requires: an empty value that is allowed nowhere helps nobody.
    """
    trial = all(header_text(source, keyword) for keyword in TRIAL)
    for module in PATIENT_AND_STUDY:
        wanted = trial or not module.startswith("clinical-trial")
        for keyword in _root_keywords(module):
            if keyword in target:
                del target[keyword]
            element = cleaned(source, keyword) if wanted else None
            if element is not None and not element.is_empty:
                target.add(element)
    for keyword in EMPTY_IF_UNKNOWN:
        if keyword not in target:
            setattr(target, keyword, "")
    _settle_faults(target, trial=trial)


def _settle_faults(target: Dataset, *, trial: bool) -> None:
    """Leave out what the source has but has wrong; leave empty what a trial has to name.

    A fault of the sender's in an attribute that says nothing must not cost the patient a result.
    """
    for module in PATIENT_AND_STUDY:
        for fault in list(module_faults(target, module)):
            keyword = fault.partition(":")[0].split("/")[1]
            if keyword in target and keyword != "StudyInstanceUID":
                del target[keyword]
            elif trial and module == "clinical-trial-subject" and fault.endswith(TYPE_2_MISSING):
                setattr(target, keyword, "")


def cleaned(source: Dataset, keyword: str) -> DataElement | None:
    """Return a copy of an attribute, decoded and fit for a UTF-8 object; None where absent."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in source:
        return None
    try:
        with _quietly():
            element = source[tag]
            value = _cleaned_value(element)
    except UNREADABLE:
        return None  # the header holds what its value representation cannot
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def header_text(source: Dataset, keyword: str, limit: int = 64) -> str:
    """Return an attribute as one clean line of text; empty where it is absent or unreadable."""
    try:
        with _quietly():
            value = source.get(keyword)
    except UNREADABLE:
        return ""
    if value is None:
        return ""
    values = [str(item) for item in value] if isinstance(value, MultiValue) else [str(value)]
    return clean("/".join(values), limit)


def headers_by_uid(context: ResultContext) -> Headers:
    """Return the source headers by SOP Instance UID."""
    return {str(source.SOPInstanceUID): source for source in context.sources}


def source_of(headers: Headers, frame: SourceFrame) -> Dataset:
    """Return the header of the instance that a frame is in.

    Raises:
        ResultError: the outcome refers to an instance whose header was not handed in (OBJ-10).
    """
    source = headers.get(frame.sop_instance_uid)
    if source is None:
        raise ResultError(f"the header of source instance {frame.sop_instance_uid} is missing")
    return source


def blank_carrier(context: ResultContext, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Make what a constructor copies from: the study, and no attribute it could trip over."""
    (carrier,) = blank_carriers(context, sop_class_uid, [sop_instance_uid])
    return carrier


def blank_carriers(
    context: ResultContext, sop_class_uid: str, sop_instance_uids: Iterable[str]
) -> Iterator[Dataset]:
    """Make as many; see `blank_carrier`. What they have in common is made once."""
    common = Dataset()
    common.SOPClassUID = sop_class_uid
    common.StudyInstanceUID = context.sources[0].StudyInstanceUID
    common.SeriesInstanceUID = context.sources[0].SeriesInstanceUID
    for keyword in EMPTY_IF_UNKNOWN:
        setattr(common, keyword, "")
    for uid in sop_instance_uids:
        carrier = Dataset()
        carrier.update(common)
        carrier.SOPInstanceUID = uid
        yield carrier


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the library from warning of a bad value by writing the value to the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _root_keywords(module: str) -> Iterator[str]:
    for attribute in standard.get_module_attribute_map()[module]:
        if not attribute["path"]:
            yield str(attribute["keyword"])


def _cleaned_value(element: DataElement) -> _Value:
    if element.VR == "SQ":
        return Sequence([_cleaned_item(item) for item in element.value])
    if element.value is None:
        return None
    if isinstance(element.value, MultiValue | list):
        return [_cleaned_one(element, item) for item in element.value]
    return _cleaned_one(element, element.value)


def _cleaned_item(item: Dataset) -> Dataset:
    result = Dataset()
    for tag in sorted(item.keys()):
        if tag.is_private or tag.element == 0:
            continue
        element = cleaned(item, item[tag].keyword)
        if element is not None:
            result.add(element)
    return result


def _cleaned_one(element: DataElement, value: _Value) -> _Value:
    if element.keyword == "PatientSex":
        return str(value) if str(value) in ("M", "F", "O") else ""
    if element.VR in _FORMATS:
        text = str(value).strip("\0 ")
        return text if _FORMATS[element.VR].fullmatch(text) else ""
    if element.VR in _TEXTS:
        return without_controls(str(value), lines=True)
    if element.VR in _STRINGS:
        return without_controls(str(value), lines=False)
    return value
