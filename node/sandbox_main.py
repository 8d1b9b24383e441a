"""The child side of `node.sandbox`: one operation at a time, under memory limits.

Run as `python -m node.sandbox_main MEMORY_MIB`. Reads one JSON object a line from standard input,
answers on standard output; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import resource
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final, TypeAlias

from pydantic import JsonValue, ValidationError

from node import inference
from node.allocator import keep_memory
from node.field_values import FieldValuesError, read_values
from node.interfaces import ResultError
from node.messages import ReadValuesRequest
from node.pictures import picture_operation
from node.rejecting import rejection_operation
from node.retrieval import bulkdata_operation, frames_operation, metadata_operation

Progress: TypeAlias = Callable[[str], None]
Operation: TypeAlias = Callable[[Mapping[str, JsonValue], Progress], Mapping[str, JsonValue]]


def read_values_operation(
    request: Mapping[str, JsonValue], progress: Progress
) -> Mapping[str, JsonValue]:
    """Read the values of some fields from some files: `{"fields": [...], "files": [...]}`.

    A file that cannot be read is named by the kind of its error; the others are answered (R7).
    """
    wanted = ReadValuesRequest.model_validate(request)
    progress("reading headers")
    values: list[JsonValue] = []
    for file in wanted.files:
        try:
            found = read_values(file.path, wanted.fields, file.offset, file.length)
        except FieldValuesError as error:
            values.append({"error": str(error)})
        else:
            values.append({name: _json(value) for name, value in found.items()})
    return {"files": values}


def _json(value: tuple[str | int | float, ...] | None) -> JsonValue:
    return None if value is None else list(value)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "bulkdata": bulkdata_operation,
    "frames": frames_operation,
    "metadata": metadata_operation,
    "picture": picture_operation,
    "probe": inference.probe_operation,
    "read_values": read_values_operation,
    "reject": rejection_operation,
    "release_engine": inference.release_engine_operation,
    "run_job": inference.run_job_operation,
    "verify_engine": inference.verify_engine_operation,
}
PARENT_GONE: Final = 3
DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def main() -> None:
    """Serve requests until the parent closes its end."""
    memory_mib = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep_memory()
    warnings.simplefilter("ignore")  # what libraries say may quote a data set
    logging.disable(logging.CRITICAL)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True)
    reader.start()
    while True:
        _serve(requests.get(), output)


def _read(stream: BinaryIO, requests: queue.SimpleQueue[bytes]) -> None:
    """Pass requests on; leave at once, whatever is running, when the parent is gone."""
    for line in stream:
        requests.put(line)
    os._exit(PARENT_GONE)


def _serve(line: bytes, output: BinaryIO) -> None:
    def say(message: Mapping[str, object]) -> None:
        output.write(json.dumps(message).encode() + b"\n")
        output.flush()

    message = json.loads(line)
    try:
        operation = OPERATIONS[message["operation"]]
        answer = operation(message["request"], lambda stage: say({"progress": stage}))
        say({"answer": dict(answer)})
    except Exception as error:  # noqa: BLE001 - the edge of the process: recorded by the parent
        say({"error": {"kind": _kind(error), "message": _message(error)}})


def _kind(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return "transient"  # a full or failing disk is no fault of the job
    return str(getattr(error, "kind", "deterministic"))


def _message(error: Exception) -> str:
    """Word an error for the job's row: our own errors speak, others only give their type.

    A library's message may quote values of the data set, which may name a patient.
    """
    if isinstance(error, ResultError | ValidationError) or hasattr(error, "kind"):
        return f"{type(error).__name__}: {error}"[:1000]
    module = type(error).__module__
    own = module.partition(".")[0] in {"node", "engines", "storage"}
    return f"{type(error).__name__}: {error}"[:1000] if own else type(error).__qualname__


if __name__ == "__main__":
    main()
