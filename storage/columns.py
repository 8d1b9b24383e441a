"""Column types: moments in UTC, and text that both databases take.

What SQLite lets pass and PostgreSQL refuses (NUL, over-long strings) is dealt with here, so that a
sender's odd data set fares the same on both.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, Text
from sqlalchemy.types import TypeDecorator

Id: Final = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: naive input is refused, and what is read back knows its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive moments; keep others in UTC."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Restore the zone that SQLite does not keep."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _clean(value: str) -> str:
    """Take out what PostgreSQL cannot hold: NUL, and halves of surrogate pairs."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


class Name(TypeDecorator[str]):
    """A string that identifies: never cut, because two that differ could then become one."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse what is too long; SQLite would take it."""
        del dialect
        if value is None:
            return None
        clean = _clean(value)
        if len(clean) > self.length:
            raise ValueError(f"an identifier is longer than {self.length} characters")
        return clean


class Line(TypeDecorator[str]):
    """A line that somebody else wrote, for people to read: cut to what the column holds."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean the line and cut it."""
        del dialect
        return None if value is None else _clean(value)[: self.length]


class Prose(TypeDecorator[str]):
    """Text of any length, or cut where a limit is given."""

    impl = Text
    cache_ok = True

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean the text and cut it."""
        del dialect
        return None if value is None else _clean(value)[: self.limit]


UID: Final = Name(64)
ATTRIBUTE: Final = Prose(256)
"""A patient, study or series attribute: the longest that is conformant is a PN of 194 characters
(PS3.5 6.2). An index of PostgreSQL holds no more than 2,700 bytes."""
MESSAGE: Final = Prose(4096)
