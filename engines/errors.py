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


class DeviceMissingError(UnavailableError):
    """The device, or its driver, is not on this machine; the message says which."""


class ModelInvalidError(EngineError):
    """The model cannot be loaded, or does not have the inputs and outputs that were promised."""


class ModelEmptyError(ModelInvalidError):
    """The model has no graph, or computes nothing."""


class ModelUnsupportedError(ModelInvalidError):
    """The runtime does not take this graph; the message names the node or the device."""


class PlanError(EngineError):
    """The root of what can be wrong with a plan: what a runtime made of a model for its devices."""


class PlanChangedError(PlanError):
    """The bytes of a plan are not those that were built."""


class PlanTruncatedError(PlanError):
    """A plan is shorter, or longer, than what was built."""


class PlanVersionError(PlanError):
    """A plan was built by another version of the library."""


class PlanDeviceError(PlanError):
    """A plan was built for other devices than the one here."""


class PlanBuildError(PlanError):
    """No plan could be built; the message is the library's."""


class InferenceError(EngineError):
    """The model was loaded, but failed on this input."""


class ProfileError(InferenceError):
    """An input has a shape that the plan was not built for; the message gives the range."""


class OutOfMemoryError(EngineError):
    """There was not enough memory, on the host or on the device."""

    kind: ClassVar[str] = "out_of_memory"
