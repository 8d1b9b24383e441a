"""What the node holds and can hand out: received instances and its own results, alike.

Held is what has its bytes, is current, and is neither superseded, withheld nor recalled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from storage.database import Database
from storage.models import Instance, Job, Result, Series, Study
from storage.queries import study_records
from storage.records import Location, SeriesAttributes, StudyRecord
from storage.states import InstanceState

ESCAPE = "\\"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInstance:
    """One object: it lies in a pack, or is a result object named by its digest."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str = ""
    digest: str
    location: Location | None = None  # None: a result object


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStudy:
    """One study, with what of it is held: `results` counts results by series and SOP class."""

    study: StudyRecord
    series: int  # of received instances
    instances: int
    results: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMatch:
    """Which studies are wanted (PS3.4 C.2.2.2). Empty: all.

    `texts` are attributes of a study by column name, with `*` and `?`; `dates` the first and last
    value of a range. Patient names are compared without regard to case. Of `modalities` one must be
    there; `result_classes` are the SOP classes of results that have one of them.
    """

    uids: tuple[str, ...] = ()
    texts: Mapping[str, str] | None = None
    ranges: Mapping[str, tuple[str, str]] | None = None
    modalities: tuple[str, ...] = ()
    result_classes: tuple[str, ...] = ()


class HoldingStore:
    """Reads the index for those who ask what is here; each method is one look."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def studies(self, match: StudyMatch, *, limit: int, offset: int = 0) -> Sequence[HeldStudy]:
        """Return studies of which something is held, those that received last first."""
        query = (
            select(Study)
            .where(or_(_received(), _made()), *_conditions(match))
            .order_by(Study.last_received_at.desc(), Study.id.desc())
            .limit(limit)
            .offset(offset)
        )
        with self._database.reading() as session:
            found = study_records(session, query)
            ids = [study.id for study in found]
            received = {
                study_id: (series, instances)
                for study_id, series, instances in session.execute(
                    select(
                        Instance.study_id,
                        func.count(Instance.series_id.distinct()),
                        func.count(),
                    )
                    .where(Instance.study_id.in_(ids), *_kept())
                    .group_by(Instance.study_id)
                )
            }
            made: dict[int, dict[tuple[str, str], int]] = {}
            for study_id, series, sop_class, count in session.execute(
                select(Job.study_id, Result.series_instance_uid, Result.sop_class_uid, func.count())
                .join(Job, Result.job_id == Job.id)
                .where(Job.study_id.in_(ids), *_given())
                .group_by(Job.study_id, Result.series_instance_uid, Result.sop_class_uid)
            ):
                made.setdefault(study_id, {})[series, sop_class] = count
        return [
            HeldStudy(
                study=study,
                series=received.get(study.id, (0, 0))[0],
                instances=received.get(study.id, (0, 0))[1],
                results=made.get(study.id, {}),
            )
            for study in found
        ]

    def series_attributes(self, study_instance_uid: str) -> Mapping[str, SeriesAttributes]:
        """Return the attributes of the received series of a study, by their UID."""
        query = (
            select(Series)
            .join(Study, Series.study_id == Study.id)
            .where(Study.study_instance_uid == study_instance_uid)
        )
        with self._database.reading() as session:
            return {
                row.series_instance_uid: SeriesAttributes(
                    modality=row.modality,
                    series_number=row.series_number,
                    series_description=row.series_description,
                    body_part_examined=row.body_part_examined,
                )
                for row in session.scalars(query)
            }

    def instances(
        self, study_instance_uid: str, series_instance_uid: str = "", sop_instance_uid: str = ""
    ) -> Sequence[HeldInstance]:
        """Return what is held of a study, a series or of one instance, results last."""
        received = (
            select(Instance, Series.series_instance_uid)
            .join(Series, Instance.series_id == Series.id)
            .join(Study, Instance.study_id == Study.id)
            .where(Study.study_instance_uid == study_instance_uid, *_kept())
            .order_by(Series.series_instance_uid, Instance.id)
        )
        made = (
            select(Result)
            .join(Job, Result.job_id == Job.id)
            .join(Study, Job.study_id == Study.id)
            .where(Study.study_instance_uid == study_instance_uid, *_given())
            .order_by(Result.series_instance_uid, Result.id)
        )
        if series_instance_uid:
            received = received.where(Series.series_instance_uid == series_instance_uid)
            made = made.where(Result.series_instance_uid == series_instance_uid)
        if sop_instance_uid:
            received = received.where(Instance.sop_instance_uid == sop_instance_uid)
            made = made.where(Result.sop_instance_uid == sop_instance_uid)
        with self._database.reading() as session:
            return [
                *(
                    _received_instance(study_instance_uid, series, row)
                    for row, series in session.execute(received)
                ),
                *(_result(study_instance_uid, row) for row in session.scalars(made)),
            ]


def _received_instance(study_instance_uid: str, series: str, row: Instance) -> HeldInstance:
    return HeldInstance(
        study_instance_uid=study_instance_uid,
        series_instance_uid=series,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        instance_number=row.instance_number,
        digest=row.digest,
        location=Location(pack=row.pack, offset=row.pack_offset, length=row.length),
    )


def _result(study_instance_uid: str, row: Result) -> HeldInstance:
    return HeldInstance(
        study_instance_uid=study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        digest=row.digest,
    )


def _kept() -> tuple[ColumnElement[bool], ...]:
    return Instance.state == InstanceState.CURRENT.value, Instance.deletion_id.is_(None)


def _given() -> tuple[ColumnElement[bool], ...]:
    return (
        Result.superseded.is_(False),
        Result.withheld.is_(False),
        Result.deletion_id.is_(None),
        Result.recall_id.is_(None),
        Result.withdrawal_id.is_(None),
    )


def _received() -> ColumnElement[bool]:
    return exists().where(Instance.study_id == Study.id, *_kept()).correlate(Study)


def _made() -> ColumnElement[bool]:
    held = exists().where(Result.job_id == Job.id, Job.study_id == Study.id, *_given())
    return held.correlate(Study)


def _conditions(match: StudyMatch) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if match.uids:
        found.append(Study.study_instance_uid.in_(match.uids))
    found += [_text(_column(name), text) for name, text in (match.texts or {}).items()]
    for name, (first, last) in (match.ranges or {}).items():
        column = _column(name)
        found.append(column != "")
        found += [column >= first] if first else []
        found += [column <= last] if last else []
    if match.modalities:
        received = exists().where(
            Series.study_id == Study.id, Series.modality.in_(match.modalities)
        )
        made = exists().where(
            Result.job_id == Job.id,
            Job.study_id == Study.id,
            Result.sop_class_uid.in_(match.result_classes),
            *_given(),
        )
        found.append(or_(received.correlate(Study), made.correlate(Study)))
    return found


def _column(name: str) -> InstrumentedAttribute[str]:
    column: InstrumentedAttribute[str] = getattr(Study, name)
    return column


def _text(column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Compare by value, or by wild card (PS3.4 C.2.2.2.4)."""
    if column is not Study.patient_name and not {"*", "?"} & set(text):
        return column == text
    pattern = text
    for special in (ESCAPE, "%", "_"):
        pattern = pattern.replace(special, ESCAPE + special)
    return column.ilike(pattern.replace("*", "%").replace("?", "_"), escape=ESCAPE)
