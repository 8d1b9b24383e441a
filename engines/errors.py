"""What this package raises. `kind` is machine readable: it chooses the retry policy of a job."""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """The root of everything this package raises."""

    kind: ClassVar[str] = "deterministic"


class PackageError(EngineError):
    """The engine package cannot be used; the message names the file and the key."""


class UnavailableError(EngineError):
    """The runtime or its device is not on this machine; the message says what is missing."""


class ModelInvalidError(EngineError):
    """The model cannot be loaded, or does not have the inputs and outputs that were promised."""


class InferenceError(EngineError):
    """The model was loaded, but failed on this input."""


class OutOfMemoryError(EngineError):
    """There was not enough memory, on the host or on the device."""

    kind: ClassVar[str] = "out_of_memory"
