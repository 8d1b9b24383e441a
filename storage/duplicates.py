"""Duplicates, held against the bytes that they are taken for: a digest can be made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from storage.lots import chunks_of
from storage.models import Instance, Series
from storage.packs import PackStore
from storage.records import Arrival, Location

CHUNK: Final = 1 << 20
PREFIX_AT: Final = 128  # behind the preamble (PS3.10 7.1)


def twins_of(session: Session, duplicates: Sequence[Arrival]) -> list[tuple[Arrival, Location]]:
    """Return duplicates, each with where the instance lies that it is taken for."""
    query = (
        select(Series.series_instance_uid, Instance)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.sop_instance_uid.in_(bindparam("uids", expanding=True)))
    )
    found: dict[tuple[str, str, str], Location] = {}
    for chunk in chunks_of(sorted({item.new.sop_instance_uid for item in duplicates})):
        for series, row in session.execute(query, {"uids": chunk}):
            place = Location(pack=row.pack, offset=row.pack_offset, length=row.length)
            found[series, row.sop_instance_uid, row.digest] = place
    pairs = []
    for item in duplicates:
        new = item.new
        twin = found.get((new.series_instance_uid, new.sop_instance_uid, new.digest))
        if twin is not None:
            pairs.append((item, twin))
    return pairs


def same_bytes(packs: PackStore, one: Location, other: Location, size: int) -> bool:
    """Say whether two instances have the same data set, of that many bytes.

    Of one that is no longer there nothing can be said against it.
    """
    try:
        with packs.path(one).open("rb") as first, packs.path(other).open("rb") as second:
            if not (_is_there(first, one) and _is_there(second, other)):
                return True
            first.seek(one.offset + one.length - size)
            second.seek(other.offset + other.length - size)
            for start in range(0, size, CHUNK):
                length = min(CHUNK, size - start)
                if first.read(length) != second.read(length):
                    return False
    except OSError:
        return True
    return True


def _is_there(file: BinaryIO, location: Location) -> bool:
    """Say whether a DICOM file begins there: retention leaves zeros."""
    file.seek(location.offset + PREFIX_AT)
    return file.read(4) == b"DICM"
