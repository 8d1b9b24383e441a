"""Asks an archive how many instances a study has: C-FIND, Study Root (PS3.4 C.4.1, C.6.2).

The counts are optional keys: an archive may give none. An archive that does not answer is no error
here but an answer, "not known", with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association

from node.interfaces import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
MOST_ANSWERS: Final = 2000  # matches of one query
NOT_HELD: Final = "it does not hold the study"
MOST_INSTANCES: Final = 10_000_000

PENDING: Final = frozenset({0xFF00, 0xFF01})
SUCCESS: Final = 0x0000
# What a C-FIND failure means (PS3.4 table C.4-1, PS3.7 annex C).
EXACT: Final[Mapping[int, str]] = {
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0xFE00: "cancelled",
}
BY_GROUP: Final[Mapping[int, str]] = {
    0xA7: "out of resources",
    0xA9: "identifier does not match SOP class",
    0xB0: "only a part of the matches",
}
BY_CLASS: Final[Mapping[int, str]] = {0xC: "unable to process"}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePeer:
    """Where the archive is, and how long it may take. Seconds."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    connect_seconds: float
    acse_seconds: float
    dimse_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCount:
    """A series that the archive holds; `instances` is None where it gives no count."""

    modality: str
    instances: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveAnswer:
    """What the archive says of one study. `why` says what kept it from being known, or is empty.

    `instances` is NumberOfStudyRelatedInstances, None where it gives none; `series` is empty
    where it was not told.
    """

    study_instance_uid: str
    instances: int | None = None
    series: Mapping[str, SeriesCount] = field(default_factory=dict)
    why: str = ""


class _NoAnswer(Exception):
    """The query did not come to its end; the message says why, in our own words.

    `lost` says that the association is gone with it.
    """

    def __init__(self, why: str, *, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


class Archive:
    """A C-FIND SCU of one archive."""

    def __init__(self, peer: ArchivePeer) -> None:
        self._peer = peer

    def address(self) -> str:
        """Say which archive this is, for people."""
        return f"dicom://{self._peer.ae_title}@{self._peer.host}:{self._peer.port}"

    def ask(self, study_instance_uids: Sequence[str]) -> Iterator[ArchiveAnswer]:
        """Ask about some studies over one association; yield an answer for each, as it comes.

        Never raises for what the archive does. Once it is lost, the rest is not known either.
        """
        association = self._associate()
        lost = "" if association.is_established else self._why_not(association)
        try:
            for uid in study_instance_uids:
                if lost:
                    yield ArchiveAnswer(study_instance_uid=uid, why=lost)
                    continue
                try:
                    yield self._ask_one(association, uid)
                except _NoAnswer as error:
                    lost = str(error) if error.lost else ""
                    yield ArchiveAnswer(study_instance_uid=uid, why=str(error))
        finally:
            if association.is_established:
                association.release()

    def _associate(self) -> Association:
        peer = self._peer
        _config.LOG_HANDLER_LEVEL = "none"
        ae = AE(ae_title=peer.calling_ae_title)
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = peer.connect_seconds
        ae.acse_timeout = peer.acse_seconds
        ae.dimse_timeout = peer.dimse_seconds
        ae.network_timeout = peer.dimse_seconds
        ae.add_requested_context(STUDY_ROOT_FIND)
        return ae.associate(peer.host, peer.port, ae_title=peer.ae_title)

    def _why_not(self, association: Association) -> str:
        if association.is_rejected:
            return "the association was rejected"
        if association.acceptor.primitive is not None:
            return "it takes no query of the Study Root model"
        return "it does not answer"

    def _ask_one(self, association: Association, study_instance_uid: str) -> ArchiveAnswer:
        """Ask at study level, then at series level, all within the time for one answer.

        Raises:
            _NoAnswer: the study level came to no end. Without its series a study is known too.
        """
        until = time.monotonic() + self._peer.dimse_seconds
        study = _query("STUDY", study_instance_uid)
        study.NumberOfStudyRelatedInstances = None
        found = [
            match
            for match in self._find(association, study, until)
            if _text(match, "StudyInstanceUID") == study_instance_uid
        ]
        if not found:
            return ArchiveAnswer(study_instance_uid=study_instance_uid, why=NOT_HELD)
        counts = [_count(match, "NumberOfStudyRelatedInstances") for match in found]
        instances = max((count for count in counts if count is not None), default=None)
        series = self._series(association, study_instance_uid, until)
        known = instances is not None or any(item.instances is not None for item in series.values())
        return ArchiveAnswer(
            study_instance_uid=study_instance_uid,
            instances=instances,
            series=series,
            why="" if known else "it gives no counts",
        )

    def _series(
        self, association: Association, study_instance_uid: str, until: float
    ) -> Mapping[str, SeriesCount]:
        query = _query("SERIES", study_instance_uid)
        query.SeriesInstanceUID = ""
        query.Modality = ""
        query.NumberOfSeriesRelatedInstances = None
        try:
            matches = self._find(association, query, until)
        except _NoAnswer as error:
            if error.lost:
                raise
            return {}
        return {
            uid: SeriesCount(
                modality=_text(match, "Modality"),
                instances=_count(match, "NumberOfSeriesRelatedInstances"),
            )
            for match in matches
            if _text(match, "StudyInstanceUID") in {"", study_instance_uid}
            and (uid := _text(match, "SeriesInstanceUID"))
        }

    def _find(self, association: Association, query: Dataset, until: float) -> list[Dataset]:
        """Return all matches; what goes on beyond its bounds is aborted."""
        matches: list[Dataset] = []
        status: int | None = None
        try:
            for answer, identifier in association.send_c_find(query, STUDY_ROOT_FIND):
                status = answer.get("Status")
                if status in PENDING and identifier is not None:
                    matches.append(identifier)
                if len(matches) > MOST_ANSWERS or (status and time.monotonic() > until):
                    association.abort()
                    raise _NoAnswer("its answer did not come to an end", lost=True)
        except (RuntimeError, ValueError, AttributeError) as error:  # pynetdicom's, when it ends
            raise _NoAnswer("the association ended", lost=True) from error
        if status != SUCCESS:
            raise _NoAnswer(_meaning(status), lost=not association.is_established)
        return matches


def _query(level: str, study_instance_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID = study_instance_uid
    return query


def _meaning(status: int | None) -> str:
    """Say what a status means that is neither pending nor success."""
    if status is None:
        return "no answer: the association was aborted or timed out"
    known = EXACT.get(status, BY_GROUP.get(status >> 8, BY_CLASS.get(status >> 12, "unknown")))
    return f"status 0x{status:04X}: {known}"


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a value as it came: pydicom's own check would print a value that is not valid."""
    if keyword not in dataset:
        return ""
    value = dataset.get_item(keyword).value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


def _count(dataset: Dataset, keyword: str) -> int | None:
    """Return a count; None where there is none, or it is no count."""
    text = _text(dataset, keyword)
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MOST_INSTANCES)):
        return None
    return int(text)
