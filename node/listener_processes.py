"""The processes that share one listener: started, asked, started again when they die, ended.

Each is told what to do by JSON lines over its standard input, and ends with it: none outlives the
node. What one acknowledged and owes rows for is written from its packs as soon as it is dead, and
until then nothing is called settled.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final, TypeAlias

import structlog
from pydantic import BaseModel, ConfigDict

from node.interfaces import ListenerError, PluginSettings, SharedListener
from node.settings import Settings
from storage.records import StorageError

START_SECONDS: Final = 120.0
END_SECONDS: Final = 600.0
SETTLE_SECONDS: Final = 6.0
"""A little more than a process waits for its own index."""
MOST_QUESTIONS: Final = 8
"""How many may be open: a process that answers none must not hold up who asks."""
STARTS: Final = "starts"

Replay: TypeAlias = Callable[[int], None]
"""Writes the rows that a process owes which has ended, by its number. Raises StorageError."""

log = structlog.get_logger()


class Part(BaseModel):
    """What a process is to be: which listener, which of its processes, with what it inherits."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    listener: str
    process: int
    descriptors: tuple[int, ...]
    spares: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How a process that died or hangs is dealt with. Seconds."""

    first: float = 0.5
    """Until one that died is started again; doubled each time."""
    most: float = 30.0
    steady: float = 60.0
    """One that lived so long is started again after the first wait."""
    answer: float = 120.0
    """One that answers nothing for so long is ended: while it hangs no study is completed."""


class ListenerProcesses:
    """All of them; to the node a listener like another."""

    def __init__(
        self,
        listener: SharedListener[PluginSettings],
        settings: Settings,
        number: int,
        *,
        replay: Replay,
        patience: Patience | None = None,
    ) -> None:
        """Share `listener` among a number of processes; nothing is opened yet."""
        self._listener = listener
        self._settings = settings
        self._number = number
        self._replay = replay
        self._patience = patience or Patience()
        self._processes: list[_Process] = []

    @property
    def name(self) -> str:
        """The listener's name."""
        return self._listener.name

    def start(self) -> None:
        """Open the door and start every process. Returns when instances can arrive in all of them.

        Raises:
            ListenerError: with the reason of the first that did not start.
        """
        descriptors = self._listener.bind()
        self._processes = [
            _Process(self._part(number, descriptors), self._forget_and_replay, self._patience)
            for number in range(1, self._number + 1)
        ]
        for process in self._processes:
            process.start()
        until = time.monotonic() + START_SECONDS
        for process in self._processes:
            problem = process.wait_started(until)
            if problem:
                self.stop()
                raise ListenerError(f"{process.name}: {problem}")

    def stop(self) -> None:
        """Close the door; each process lets what is in flight end within its grace time."""
        for process in self._processes:
            process.end()
        self._listener.stop()
        for process in self._processes:
            process.join()

    def address(self) -> str:
        """Say where the door is."""
        return self._listener.address()

    def settle(self) -> bool:
        """Let every process bring what it acknowledged into the index; False: not in time."""
        asked = [(process, process.ask()) for process in self._processes]
        until = time.monotonic() + SETTLE_SECONDS
        return all(process.has_settled(question, until) for process, question in asked)

    def readiness(self) -> Mapping[str, str]:
        """Return each process with what is wrong with it; empty text means ready."""
        return {process.name: process.problem for process in self._processes}

    def restarts(self) -> Mapping[str, int]:
        """Return how often each process was started again."""
        return {process.name: process.restarts for process in self._processes}

    def _part(self, number: int, descriptors: Sequence[int]) -> Part:
        return Part(
            settings=self._settings,
            listener=self.name,
            process=number,
            descriptors=tuple(descriptors),
            spares=-(-self._settings.storage.spare_packs // self._number),
        )

    def _forget_and_replay(self, number: int) -> None:
        self._listener.forget(number)
        self._replay(number)


class _Process:
    """One of them, with the thread that listens to it and starts it again."""

    def __init__(self, part: Part, replay: Replay, patience: Patience) -> None:
        self.name = f"{part.listener}-{part.process}"
        self.restarts = 0
        self.problem = STARTS
        self._part = part
        self._replay = replay
        self._patience = patience
        self._changed = threading.Condition()
        self._child: subprocess.Popen[bytes] | None = None
        self._replayed = True  # nothing was acknowledged that has no rows; only while there is none
        self._asked = 0  # questions so far; they are answered in their order
        self._answered = 0
        self._answer = False  # to the last one that was answered
        self._open_since = 0.0  # the oldest question that is not answered
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Start it, and again whenever it dies."""
        self._thread.start()

    def wait_started(self, until: float) -> str:
        """Wait until it lets instances in; return what is wrong, if it does not."""
        with self._changed:
            while self.problem == STARTS and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return self.problem

    def end(self) -> None:
        """Tell it to end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            self._say({"end": True})

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(END_SECONDS)
        child = self._child
        if child is not None:
            child.kill()
            self._thread.join()

    def ask(self) -> int:
        """Ask whether all is settled; return the number of the question, 0 if it was not taken."""
        with self._changed:
            if self._asked == self._answered:
                self._open_since = time.monotonic()
            self._end_if_it_hangs()
            if self._asked - self._answered >= MOST_QUESTIONS or not self._say({"settle": True}):
                return 0
            self._asked += 1
            return self._asked

    def _end_if_it_hangs(self) -> None:
        silent = time.monotonic() - self._open_since
        if self._child is not None and not self.problem and silent > self._patience.answer:
            self._set_problem(f"did not answer for {silent:.0f} s")
            self._child.kill()

    def has_settled(self, question: int, until: float) -> bool:
        """Wait for the answer; one that is dead has settled when its rows were written."""
        with self._changed:
            while self._answered < question:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            if self._child is None:
                return self._replayed
            return bool(question) and self._answer

    # ------------------------------------------------------------ its thread

    def _run(self) -> None:
        wait = self._patience.first
        while self._launch():
            began = time.monotonic()
            self._listen()
            self._bury(began, wait)
            self._replay_until_done()
            if time.monotonic() - began > self._patience.steady:
                wait = self._patience.first
            self._pause(wait)
            wait = min(wait * 2, self._patience.most)

    def _launch(self) -> bool:
        """Start the process; False: the node ends."""
        with self._changed:
            if self._stopping:
                return False
            self._replayed = False
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "node.listener_main"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=self._part.descriptors,
                    start_new_session=True,
                )
            except OSError as error:
                self._set_problem(f"cannot be started: {error.strerror}")
                return True
            self._write(self._part.model_dump_json().encode())
            return True

    def _listen(self) -> None:
        """Take what it says until it ends."""
        child = self._child
        for line in () if child is None else _lines(child.stdout):
            message = json.loads(line)
            with self._changed:
                if "ready" in message:
                    self._set_problem("")
                elif "failed" in message:
                    self._set_problem(str(message["failed"]))
                else:
                    self._answered += 1
                    self._open_since = time.monotonic()
                    self._answer = bool(message["settled"])
                self._changed.notify_all()

    def _bury(self, began: float, wait: float) -> None:
        """Note that it has ended; nobody waits for its answers any more."""
        child = self._child
        status = "" if child is None else _how_it_ended(child)
        with self._changed:
            self._child = None
            self._answered, self._answer = self._asked, False
            if not self._stopping:
                if self.problem in {"", STARTS}:
                    self._set_problem(f"ended ({status}), starts again")
                log.error(
                    "listener.process_ended",
                    process=self.name,
                    status=status,
                    reason=self.problem,
                    lived_seconds=round(time.monotonic() - began, 1),
                    again_in_seconds=wait,
                )
                self.restarts += 1
            self._changed.notify_all()

    def _replay_until_done(self) -> None:
        """Write the rows that it owes; while that fails nothing is settled."""
        while not self._stopping:
            try:
                self._replay(self._part.process)
            except StorageError as error:
                log.error("listener.process_not_replayed", process=self.name, error=str(error))
                self._pause(self._patience.first)
            else:
                with self._changed:
                    self._replayed = True
                return

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            while not self._stopping and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _set_problem(self, problem: str) -> None:
        self.problem = problem
        self._changed.notify_all()

    def _say(self, order: Mapping[str, object]) -> bool:
        return self._child is not None and self._write(json.dumps(order).encode())

    def _write(self, line: bytes) -> bool:
        """Write a line to the process; False: it does not read any more."""
        pipe = None if self._child is None else self._child.stdin
        if pipe is None:
            return False
        try:
            pipe.write(line + b"\n")
            pipe.flush()
        except (OSError, ValueError):  # its end of the pipe, or ours, is closed
            return False
        return True


def _lines(pipe: IO[bytes] | None) -> Iterator[bytes]:
    if pipe is not None:
        yield from pipe


def _how_it_ended(child: subprocess.Popen[bytes]) -> str:
    """Wait for its end; close what is left of its pipes."""
    code = child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was not read by it
                continue
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
