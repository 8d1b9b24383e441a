"""A child process that may hang, crash or run out of memory without harm to its parent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from node import sandbox_main
from node.sandbox import (
    Deadlines,
    Sandbox,
    SandboxCancelled,
    SandboxCrash,
    SandboxDeadline,
    SandboxError,
    SandboxFailed,
    Watch,
)
from tests.factories import make_ct_series

PATIENT = Deadlines(soft=30, hard=60)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(memory_mib=4096)
    yield box
    box.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Make a path whose opening blocks for ever: a hang, made of the file system only."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def question(*paths: Path) -> dict[str, JsonValue]:
    return {"fields": ["Modality"], "files": [{"path": str(path)} for path in paths]}


def gone(pid: int) -> bool:
    """Say whether a process has ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_values_are_read_in_the_child(sandbox: Sandbox, tmp_path: Path) -> None:
    (file,) = make_ct_series(tmp_path, slices=1, rows=16, columns=16)
    answer = sandbox.call("read_values", question(file), deadlines=PATIENT)
    assert answer == {"files": [{"Modality": ["CT"]}]}
    assert sandbox.pid != os.getpid()


def test_unreadable_file_is_told_and_the_others_are_answered(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    (file,) = make_ct_series(tmp_path, slices=1, rows=16, columns=16)
    broken = tmp_path / "broken"
    broken.write_bytes(b"not DICOM")
    answer = sandbox.call("read_values", question(broken, file), deadlines=PATIENT)
    files = answer["files"]
    assert isinstance(files, list)
    assert "error" in str(files[0])
    assert files[1] == {"Modality": ["CT"]}


def test_error_of_an_operation_leaves_the_child_alive(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxFailed) as caught:
        sandbox.call("read_values", {"fields": 1}, deadlines=PATIENT)
    assert caught.value.kind == "deterministic"
    pid = sandbox.pid
    sandbox.call("read_values", question(), deadlines=PATIENT)
    assert sandbox.pid == pid


def test_hang_is_killed_at_the_hard_deadline_and_the_next_call_works(
    sandbox: Sandbox, fifo: Path
) -> None:
    soft: list[float] = []
    began = time.monotonic()
    with pytest.raises(SandboxDeadline):
        sandbox.call(
            "read_values",
            question(fifo),
            deadlines=Deadlines(soft=1, hard=6),
            watch=Watch(soft_deadline=lambda: soft.append(time.monotonic() - began)),
        )
    assert len(soft) == 1
    assert sandbox.pid is None
    assert sandbox.call("read_values", question(), deadlines=PATIENT) == {"files": []}


def test_crash_is_told_with_its_signal(sandbox: Sandbox, fifo: Path) -> None:
    sandbox.call("read_values", question(), deadlines=PATIENT)
    pid = sandbox.pid
    assert pid is not None
    threading.Timer(0.5, os.kill, (pid, signal.SIGSEGV)).start()
    with pytest.raises(SandboxCrash, match="SIGSEGV"):
        sandbox.call("read_values", question(fifo), deadlines=PATIENT)
    assert gone(pid)


def test_work_that_is_taken_back_kills_the_child(sandbox: Sandbox, fifo: Path) -> None:
    with pytest.raises(SandboxCancelled):
        sandbox.call(
            "read_values",
            question(fifo),
            deadlines=PATIENT,
            watch=Watch(keep_going=lambda: False),
        )
    assert sandbox.pid is None


def test_memory_beyond_the_limit_is_refused_to_the_child_only(tmp_path: Path) -> None:
    (file,) = make_ct_series(tmp_path, slices=1, rows=16, columns=16)
    bomb = tmp_path / "bomb.dcm"
    content = file.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    huge = b"\x08\x00\x01\x00UN\0\0" + (3 << 30).to_bytes(4, "little")
    with bomb.open("wb") as target:
        target.write(content[:start] + huge)
        target.truncate(start + len(huge) + (3 << 30))
    small = Sandbox(memory_mib=2048)
    try:
        with pytest.raises(SandboxFailed) as caught:
            small.call("read_values", question(bomb), deadlines=PATIENT)
        assert caught.value.kind == "out_of_memory"
        assert "Modality" in str(small.call("read_values", question(file), deadlines=PATIENT))
    finally:
        small.close()


def test_child_ends_when_its_parent_is_killed(fifo: Path) -> None:
    script = (
        "from node.sandbox import *; import threading, time\n"
        "box = Sandbox(memory_mib=4096)\n"
        "limits = Deadlines(soft=99, hard=99)\n"
        "box.call('read_values', {'fields': [], 'files': []}, deadlines=limits)\n"
        "print(box.pid, flush=True)\n"
        f"box.call('read_values', {{'fields': [], 'files': [{{'path': {str(fifo)!r}}}]}},"
        " deadlines=limits)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    until = time.monotonic() + 10
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "full"), "transient"),
        (OSError(errno.EIO, "failing"), "transient"),
        (FileNotFoundError(errno.ENOENT, "gone"), "deterministic"),
        (MemoryError(), "out_of_memory"),
    ],
)
def test_a_full_disk_is_no_fault_of_the_job(error: Exception, kind: str) -> None:
    assert sandbox_main._kind(error) == kind


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1, 0.5, 1.5])
def test_closing_ends_a_call_in_another_thread(pause: float, fifo: Path) -> None:
    """A pipe closed under its reader never ends: the call would wait for its deadline."""
    box = Sandbox(memory_mib=4096)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            box.call("read_values", question(fifo), deadlines=PATIENT)
        except SandboxError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(pause)
    began = time.monotonic()
    box.close()
    thread.join(10)
    assert time.monotonic() - began < PATIENT.hard / 2
    assert not thread.is_alive()
    assert len(ended) == 1
    assert box.pid is None
    with pytest.raises(SandboxCancelled):
        box.call("read_values", question(fifo), deadlines=PATIENT)


def test_closing_ends_a_call_that_has_no_process_yet(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call looked whether the sandbox was closed just before it was."""
    box = Sandbox(memory_mib=4096)
    alive = box._alive
    closing = threading.Thread(target=box.close)

    def late() -> subprocess.Popen[bytes]:
        closing.start()
        while not box._closed:
            time.sleep(0.001)
        return alive()

    monkeypatch.setattr(box, "_alive", late)
    with pytest.raises(SandboxCancelled):
        box.call("read_values", question(fifo), deadlines=PATIENT)
    closing.join(10)
    assert not closing.is_alive()
    assert box.pid is None


def test_a_child_keeps_the_memory_that_it_frees() -> None:
    """A job that touches fresh pages for each of its arrays takes several times as long."""
    kept = """
import mmap
from pathlib import Path
from node.allocator import keep_memory

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE >> 20

keep_memory()
before = resident_mib()
array = bytearray(b"x" * (200 << 20))
del array
print(resident_mib() - before)
"""
    done = subprocess.run([sys.executable, "-c", kept], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 200
