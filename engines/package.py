"""An engine package: a folder with `engine.toml`, model files and a golden case.

Everything is checked before a byte of a model is parsed: names, kinds, links and digests of all
files, and every key of `engine.toml`. A package is data; no code in its folder is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from pydantic import JsonValue, ValidationError

from engines.base import find_runtime, find_task
from engines.errors import PackageError
from engines.manifest import EnginePackage, Manifest, Table

MANIFEST: Final = "engine.toml"
LISTED: Final = frozenset({".onnx", ".npz", ".safetensors"})
"""Kinds of files whose digest `engine.toml` must give."""
UNLISTED: Final = frozenset({".toml", ".md", ".txt", ".py"})
"""Kinds of files that are never read, other than `engine.toml` itself. No kind holds pickles."""
IGNORED_FOLDERS: Final = frozenset({"__pycache__"})
TableT = TypeVar("TableT", bound=Table)


def shipped_folder() -> Path:
    """Return the folder of the engines that ship."""
    return Path(__file__).parent / "reference"


def find_packages(folders: Sequence[Path]) -> list[Path]:
    """Return every folder with an `engine.toml`: the folders themselves, or their children.

    Raises:
        PackageError: a folder does not exist.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise PackageError(f"{folder}: no such folder")
        candidates = [folder, *sorted(folder.iterdir())]
        found |= {path.resolve(): None for path in candidates if (path / MANIFEST).is_file()}
    return list(found)


def load_package(folder: Path) -> EnginePackage:
    """Read and check a package.

    Raises:
        PackageError: naming the file and the key, and what is wrong.
    """
    contents = _hash_files(folder)
    if MANIFEST not in contents:
        raise PackageError(f"{MANIFEST}: not in {folder}")
    table = _parse((folder / MANIFEST).read_bytes())
    task = find_task(str(table.get("task")))
    task_table = table.pop(task.name, None)
    manifest = _validated(Manifest, table, "")
    _check_digests(manifest, contents)
    for name in (manifest.runtime, *(rung.runtime for rung in manifest.ladder)):
        find_runtime(name)
    if not isinstance(task_table, dict):
        raise PackageError(f"{MANIFEST}: {manifest.task}: the table of the task is missing")
    return EnginePackage(
        folder=folder,
        digest=_digest(contents),
        manifest=manifest,
        settings=_validated(task.settings_type, task_table, f"{manifest.task}."),
    )


@dataclass(frozen=True, slots=True)
class _Content:
    size: int
    sha256: str


def _hash_files(folder: Path) -> dict[str, _Content]:
    """Hash every file below the folder, by its path relative to it with forward slashes."""
    contents = {}
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix not in LISTED | UNLISTED:
            raise PackageError(f"{name}: files of kind {path.suffix!r} do not belong in a package")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        contents[name] = _Content(path.stat().st_size, digest)
    return contents


def files_of(folder: Path) -> list[Path]:
    """Return every file of a package, in the order of the names.

    Raises:
        PackageError: there is something that is neither a file nor a folder.
    """
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        path = Path(entry.path)
        if entry.is_symlink():
            raise PackageError(f"{path.name}: is a symbolic link, which a package may not hold")
        if entry.is_dir():
            if entry.name not in IGNORED_FOLDERS:
                yield from _walk(path)
        elif entry.is_file():
            yield path
        else:
            raise PackageError(f"{path.name}: is neither a file nor a folder")


def _parse(text: bytes) -> dict[str, JsonValue]:
    try:
        table: dict[str, JsonValue] = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PackageError(f"{MANIFEST}: {error}") from error
    return table


def _validated(kind: type[TableT], table: Mapping[str, JsonValue], prefix: str) -> TableT:
    """Check a table; name the path of the first key that is wrong."""
    try:
        return kind.model_validate_json(json.dumps(table))
    except (ValidationError, TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise PackageError(f"{MANIFEST}: {prefix or 'top'}: {error}") from error
        first = error.errors(include_url=False)[0]
        where = prefix + ".".join(str(part) for part in first["loc"])
        raise PackageError(f"{MANIFEST}: {where.rstrip('.')}: {first['msg']}") from error


def _check_digests(manifest: Manifest, contents: Mapping[str, _Content]) -> None:
    for name, expected in manifest.files.items():
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts:
            raise PackageError(f"{MANIFEST}: files.{name}: leaves the folder of the package")
        if name not in contents:
            raise PackageError(f"{MANIFEST}: files.{name}: there is no such file")
        if not contents[name].size:
            raise PackageError(f"{name}: is empty")
        found = contents[name].sha256
        if found != expected:
            raise PackageError(f"{name}: its SHA-256 is {found}, {MANIFEST} says {expected}")
    for name in contents:
        if PurePosixPath(name).suffix in LISTED and name not in manifest.files:
            raise PackageError(f"{name}: {MANIFEST} gives no digest for it under [files]")


def _digest(contents: Mapping[str, _Content]) -> str:
    """Hash names and bytes of all files in the order of their names."""
    whole = hashlib.sha256()
    for name in sorted(contents):
        content = contents[name]
        whole.update(f"{content.sha256} {content.size} {name}\n".encode())
    return whole.hexdigest()


__all__ = [
    "EnginePackage",
    "PackageError",
    "find_packages",
    "load_package",
    "shipped_folder",
]
