"""What storage raises. Nothing of SQLAlchemy or of the operating system passes this edge."""

from __future__ import annotations


class StorageError(Exception):
    """The root of everything this package raises."""


class NotFoundError(StorageError):
    """The study, job, delivery or revision asked for does not exist."""


class OutOfResourcesError(StorageError):
    """The disk or the database could not take the data now; the sender may try again (0xA700)."""


class ObjectTooLargeError(StorageError):
    """The object is larger than the limit; nothing of it was kept."""


class LeaseLostError(StorageError):
    """The job or delivery was taken over by another owner; this owner's outcome is dropped."""


class InUseError(StorageError):
    """Another process writes in this node's folder of packs."""


class SchemaError(StorageError):
    """The database's schema is not the one this version needs; the message says what to run."""


class DataRefusedError(StorageError):
    """The database cannot hold this value whenever it is tried: a retry would fail the same way."""


class ConstraintError(StorageError):
    """A rule of the database refused the change: a row is there already, or a state forbids it."""


class BytesDeletedError(StorageError):
    """Retention deleted the bytes that this needs; the message says when, and by which rule."""


class RecalledError(StorageError):
    """The result was recalled: it is not sent again."""


class SupersededError(StorageError):
    """The study moved on to a newer revision: work of the older one is not done or sent again."""
