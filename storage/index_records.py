"""Records of the index, from objects to studies. Import them from `storage.records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from storage.states import InstanceState, ReceiptOutcome, StudyState

JsonValue: TypeAlias = (
    "bool | int | float | str"
    " | list[JsonValue] | tuple[JsonValue, ...] | Mapping[str, JsonValue] | None"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """Bytes that are durable: `digest` is over the data set bytes (storage.digests)."""

    digest: str
    size: int
    created: bool  # False: the same bytes were there already


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where an instance lies: a whole DICOM file (PS3.10) at bytes of a pack."""

    pack: str
    offset: int  # of the preamble
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAttributes:
    """Patient and study attributes that results and search need, in Unicode (PS3.3 C.7.1-2).

    Absent attributes are empty strings. Dates stay DICOM text (DA, TM).
    """

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_id: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    referring_physician_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesAttributes:
    """Series attributes of the index (PS3.3 C.7.3)."""

    modality: str = ""
    series_number: str = ""
    series_description: str = ""
    body_part_examined: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """Who brought an instance: an association (or a look into a folder), named by `token`."""

    token: str  # 32 hexadecimal digits; empty: no association
    listener: str  # "dimse", "folder", ...
    calling_ae: str = ""
    called_ae: str = ""
    peer_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInstance:
    """One received instance whose bytes are durable, about to be indexed."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str = ""
    digest: str
    size: int
    study: StudyAttributes
    series: SeriesAttributes
    listener: str  # "dimse", "folder", ...
    calling_ae: str = ""
    peer_address: str = ""
    location: Location
    quiet_seconds: float  # the study is complete this long after its last instance
    own_result: bool = False  # its header says that this installation's software made it


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One instance that was acknowledged, or is about to be, and who brought it when."""

    new: NewInstance
    at: datetime
    association_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedInstance:
    """Bytes that were kept although they cannot be indexed, with the reason."""

    digest: str
    size: int
    reason: str
    listener: str
    calling_ae: str = ""
    peer_address: str = ""
    location: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineRecord:
    """One note of bytes that could not be indexed."""

    id: int
    at: datetime
    digest: str
    size: int
    location: Location
    reason: str
    listener: str
    calling_ae: str
    peer_address: str
    deleted_at: datetime | None = None  # retention deleted its bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the index did with an instance. `revision` is the study revision it belongs to."""

    outcome: ReceiptOutcome
    study_id: int  # 0: one of our own results, of a study that is not known here
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance in the index."""

    id: int
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str
    digest: str
    size: int
    location: Location
    state: InstanceState
    received_at: datetime
    revision: int  # the study revision that this instance opened or joined
    deletion_id: int | None = None  # retention deleted its bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRecord:
    """One series in the index."""

    id: int
    series_instance_uid: str
    attributes: SeriesAttributes
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One study in the index, at its current revision."""

    id: int
    study_instance_uid: str
    revision: int
    state: StudyState
    attributes: StudyAttributes
    listener: str
    calling_ae: str
    modalities: tuple[str, ...]
    series: int
    instances: int
    size: int
    first_received_at: datetime
    last_received_at: datetime
    complete_after: datetime
    emptied_at: datetime | None = None  # retention deleted all of its bytes
    evidence: Mapping[str, JsonValue] = field(default_factory=dict)
    reason: str = ""
    rule_revision: int | None = None
    explanation: Mapping[str, JsonValue] = field(default_factory=dict)
