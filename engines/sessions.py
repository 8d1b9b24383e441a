"""A loaded model, or several of one engine: named arrays go in and named arrays come out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engines.errors import ModelInvalidError

Array: TypeAlias = npt.NDArray[np.generic]
Arrays: TypeAlias = Mapping[str, Array]


class Session(ABC):
    """A loaded model. Whoever opened it closes it."""

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Run the model once on named arrays; shapes and dtypes are the model's.

        Raises:
            ModelInvalidError: the names are not those of the model.
            OutOfMemoryError, InferenceError: what the runtime said, translated.
        """

    def part(self, name: str) -> Session:
        """Return another model of the engine, by its name in `[model.parts]`.

        Raises:
            ModelInvalidError: the package has none of that name.
        """
        raise ModelInvalidError(f"the package has no model named {name!r}")

    @abstractmethod
    def close(self) -> None:
        """Give back what the model holds. May be called twice."""


class SeveralSessions(Session):
    """A model and the others that its engine needs, opened and closed together."""

    def __init__(self, main: Session, parts: Mapping[str, Session]) -> None:
        self._main, self._parts = main, parts

    def run(self, inputs: Arrays) -> Arrays:
        """Run the first one."""
        return self._main.run(inputs)

    def part(self, name: str) -> Session:
        """Return one of the others."""
        return self._parts[name] if name in self._parts else super().part(name)

    def close(self) -> None:
        """Close all."""
        for session in (*self._parts.values(), self._main):
            session.close()


@dataclass(slots=True)
class Clock:
    """Seconds that models ran."""

    seconds: float = 0.0


class TimedSession(Session):
    """A session that counts the seconds spent inside the model, and inside its other models."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session, self._clock = session, clock

    def run(self, inputs: Arrays) -> Arrays:
        """Run the model, and count."""
        since = time.monotonic()
        try:
            return self._session.run(inputs)
        finally:
            self._clock.seconds += time.monotonic() - since

    def part(self, name: str) -> Session:
        """Return another model that counts on the same clock."""
        return TimedSession(self._session.part(name), self._clock)

    def close(self) -> None:
        """Close the model."""
        self._session.close()
