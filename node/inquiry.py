"""Asks the archive about studies that are being received, and keeps what it says.

A sweep of its own: an archive that hangs holds up no other study's completion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import structlog

from node.archive import NOT_HELD, ArchiveAnswer
from storage.expectations import ExpectationStore, Said, SeriesSaid
from storage.records import StorageError, StudyRecord
from storage.states import ExpectationSource, ExpectationState

log = structlog.get_logger()


class Asks(Protocol):
    """What this needs of an archive: `node.archive.Archive`, or a stand-in in tests."""

    def ask(self, study_instance_uids: Sequence[str]) -> Iterator[ArchiveAnswer]:
        """Yield an answer for each study."""
        ...

    def address(self) -> str:
        """Say which archive this is."""
        ...


class Inquiry:
    """Asks about each study every so often, as long as it matters."""

    def __init__(
        self,
        *,
        archive: Asks,
        expectations: ExpectationStore,
        every_seconds: float,
        ignore_modalities: Collection[str],
    ) -> None:
        self._archive = archive
        self._expectations = expectations
        self._every_seconds = every_seconds
        self._ignore_modalities = frozenset(ignore_modalities)
        self._told = ""

    def sweep(self) -> None:
        """Ask about what is due to be asked about; keep each answer as it comes."""
        studies = {
            study.study_instance_uid: study
            for study in self._expectations.to_ask(self._every_seconds)
        }
        if not studies:
            return
        unknown = ""
        for answer in self._archive.ask(tuple(studies)):
            if answer.why != NOT_HELD:
                unknown = unknown or answer.why
            self._keep(studies[answer.study_instance_uid], answer)
        self._tell(unknown)

    def _keep(self, study: StudyRecord, answer: ArchiveAnswer) -> None:
        try:
            own = self._expectations.own_series(study.id)
            self._expectations.answered(said_of(answer, own, self._ignore_modalities))
        except StorageError as error:
            log.warning("archive.answer_not_kept", study_id=study.id, error=type(error).__name__)

    def _tell(self, why: str) -> None:
        """Log a change once: an archive that is down is asked again and again."""
        if why and why != self._told:
            log.warning("archive.count_not_known", archive=self._archive.address(), reason=why)
        if self._told and not why:
            log.info("archive.count_known_again", archive=self._archive.address())
        self._told = why


def said_of(answer: ArchiveAnswer, own: Collection[str], ignored: Collection[str]) -> Said:
    """Return what an answer says of the instances that can come here.

    Series that this node made, and series of modalities that are never sent here, are left out of
    both counts. Where such a series has no count of its own, or nothing is said of the series of
    a study that has results, the study's count says nothing.
    """
    left_out = {
        uid: series
        for uid, series in answer.series.items()
        if uid in own or series.modality in ignored
    }
    unclear = any(series.instances is None for series in left_out.values())
    unclear = unclear or bool((own or ignored) and not answer.series)
    instances = answer.instances
    if instances is not None:
        instances -= sum(series.instances or 0 for series in left_out.values())
    if unclear:
        instances = None
    series = {
        uid: SeriesSaid(instances=series.instances)
        for uid, series in answer.series.items()
        if uid not in left_out and series.instances is not None
    }
    every = len(series) + len(left_out) == len(answer.series)
    if instances is None and every and series:
        instances = sum(item.instances for item in series.values())
    why = answer.why
    if not why and instances is None:
        why = "it does not tell our own results from the rest" if unclear else "it gives no counts"
    return Said(
        study_instance_uid=answer.study_instance_uid,
        source=ExpectationSource.ARCHIVE,
        state=ExpectationState.NOT_KNOWN if why else ExpectationState.COUNTED,
        instances=None if why else instances,
        series={} if why else series,
        note=why,
    )
