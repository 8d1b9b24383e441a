"""A child process that does one thing at a time and can be killed without harm to the node.

Untrusted bytes are parsed and engines are run in such a process only. Parent and child speak JSON
lines over pipes; the child exits by itself when the parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

TICK_SECONDS: Final = 0.5
EXIT_GRACE_SECONDS: Final = 2.0


class SandboxError(Exception):
    """What was asked of the child did not come to a result."""


class SandboxFailed(SandboxError):
    """The child answered with an error: `kind` is machine readable, the message is for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class SandboxDeadline(SandboxError):
    """The hard deadline passed; the process group was killed."""


class SandboxCrash(SandboxError):
    """The process ended by itself: a crash, or the kernel took its memory."""


class SandboxCancelled(SandboxError):
    """The caller gave the work up; the process group was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a call may take. `soft` is reported once, `hard` kills. Seconds."""

    soft: float
    hard: float


def _carry_on() -> bool:
    return True


def _ignore(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How the caller follows a call: `progress` hears stages, `soft_deadline` is called once.

    `keep_going` is asked several times a second; False kills the child (lease lost, superseded).
    """

    progress: Callable[[str], None] = _ignore
    soft_deadline: Callable[[], None] = lambda: None
    keep_going: Callable[[], bool] = _carry_on


@dataclass(slots=True, kw_only=True)
class _Call:
    """The clock of one call, on the monotonic clock."""

    deadlines: Deadlines
    watch: Watch
    started: float = field(default_factory=time.monotonic)
    soft_reported: bool = False

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def check(self) -> None:
        if self.elapsed() > self.deadlines.hard:
            raise SandboxDeadline(f"no result within {self.deadlines.hard:g} s")
        if not self.soft_reported and self.elapsed() > self.deadlines.soft:
            self.soft_reported = True
            self.watch.soft_deadline()
        if not self.watch.keep_going():
            raise SandboxCancelled("the work was taken back")


class Sandbox:
    """One resident child process, started at first use and again after each death."""

    def __init__(self, *, memory_mib: int) -> None:
        self._memory_mib = memory_mib
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._lock = threading.Lock()
        self._closed = False

    def call(
        self,
        operation: str,
        request: Mapping[str, JsonValue],
        *,
        deadlines: Deadlines,
        watch: Watch | None = None,
    ) -> Mapping[str, JsonValue]:
        """Run one operation in the child and return its answer.

        Raises:
            SandboxFailed: the operation raised; the child lives on.
            SandboxDeadline, SandboxCrash, SandboxCancelled: the child is gone.
        """
        call = _Call(deadlines=deadlines, watch=watch or Watch())
        with self._lock:
            if self._closed:
                raise SandboxCancelled("the sandbox was closed")
            process = self._alive()
            try:
                self._send(process, {"operation": operation, "request": dict(request)})
                return self._answer(process, call)
            except SandboxFailed:
                raise
            except BaseException:
                self._kill()
                raise

    def close(self) -> None:
        """End the child, for good: ask first, kill its process group after a grace time.

        A call under way in another thread ends with the child. Only that thread closes the pipe it
        reads: closed under it, the pipe would never end, and its number might be another file's.
        """
        self._closed = True
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_GRACE_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        with self._lock:
            self._kill()

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while there is none."""
        return None if self._process is None else self._process.pid

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._kill()
        if self._process is None:
            self._buffer = b""
            self._process = subprocess.Popen(  # noqa: S603 - our own module, fixed arguments
                [sys.executable, "-m", "node.sandbox_main", str(self._memory_mib)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._process

    @staticmethod
    def _send(process: subprocess.Popen[bytes], message: Mapping[str, object]) -> None:
        if process.stdin is None:
            raise SandboxCrash("the process has no input")
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except (OSError, ValueError) as error:  # its end of the pipe, or ours, is closed
            raise SandboxCrash("the process ended before it took the work") from error

    def _answer(self, process: subprocess.Popen[bytes], call: _Call) -> Mapping[str, JsonValue]:
        while True:
            message = json.loads(self._line(process, call))
            if "progress" in message:
                call.watch.progress(str(message["progress"]))
            elif "error" in message:
                raise SandboxFailed(message["error"]["kind"], message["error"]["message"])
            else:
                answer: Mapping[str, JsonValue] = message["answer"]
                return answer

    def _line(self, process: subprocess.Popen[bytes], call: _Call) -> bytes:
        if process.stdout is None:
            raise SandboxCrash("the process has no output")
        fd = process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                call.check()
                if self._closed:  # it may have been before there was a process to end
                    raise SandboxCancelled("the sandbox was closed")
                if not selector.select(TICK_SECONDS):
                    continue
                chunk = os.read(fd, 1 << 20)
                if not chunk:
                    raise SandboxCrash(f"the process ended: {_why(process)}")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # unflushed input of a process that is gone
                    stream.close()


def _why(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(EXIT_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return "it closed its output"
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
