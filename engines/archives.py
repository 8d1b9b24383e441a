"""An engine package as one file: a zip, the same bytes every time, read with suspicion.

What comes out of an archive is checked as every package is, by the digests of its `engine.toml`,
before it stands where it was wanted.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from engines.errors import EngineError, PackageError
from engines.manifest import EnginePackage
from engines.package import LISTED, MANIFEST, UNLISTED, files_of, load_package
from engines.packing import EPOCH

SUFFIX: Final = ".zip"
MOST_FILES: Final = 1000
MOST_BYTES: Final = 16 << 30
CHUNK: Final = 1 << 20
READABLE: Final = 0o644
UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def export_package(folder: Path, archive: Path) -> EnginePackage:
    """Write a package, which is checked first, into an archive that must not exist yet.

    Raises:
        PackageError: the package is wrong, or the archive exists.
    """
    package = load_package(folder)
    try:
        with archive.open("xb") as stream, zipfile.ZipFile(stream, "w") as packed:
            for path in files_of(folder):
                name = path.relative_to(folder).as_posix()
                member = zipfile.ZipInfo(name, EPOCH)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = (stat.S_IFREG | READABLE) << 16
                with path.open("rb") as source, packed.open(member, "w", force_zip64=True) as to:
                    shutil.copyfileobj(source, to, CHUNK)
    except FileExistsError as error:
        raise PackageError(f"{archive}: exists already") from error
    return package


def import_archive(archive: Path, target: Path) -> EnginePackage:
    """Make the package `target`, which must not exist yet, of an archive, and check it.

    Raises:
        PackageError: the archive is damaged, holds what no package may, or other bytes than its
            `engine.toml` says; nothing is left behind.
    """
    if target.exists():
        raise PackageError(f"{target}: exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".import-") as staging:
        folder = Path(staging) / target.name
        folder.mkdir()
        try:
            with zipfile.ZipFile(archive) as packed:
                _unpack(packed, folder, archive.name)
        except UNREADABLE as error:
            raise PackageError(f"{archive.name}: is damaged, or no archive: {error}") from error
        except OSError as error:
            raise PackageError(f"{archive.name}: {error.strerror or error}") from error
        load_package(folder)
        folder.rename(target)
    try:
        return load_package(target)
    except EngineError:
        shutil.rmtree(target)
        raise


def _unpack(packed: zipfile.ZipFile, folder: Path, archive: str) -> None:
    members = [member for member in packed.infolist() if not member.is_dir()]
    if len(members) > MOST_FILES:
        raise PackageError(f"{archive}: holds {len(members)} files, {MOST_FILES} are allowed")
    left = MOST_BYTES
    for member in members:
        _check_member(member, archive)
        path = folder / member.filename
        if path.exists():
            raise PackageError(f"{archive}: {member.filename}: is in it twice")
        path.parent.mkdir(parents=True, exist_ok=True)
        with packed.open(member) as source, path.open("xb") as to:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise PackageError(f"{archive}: holds more than {MOST_BYTES >> 30} GiB")
                to.write(chunk)
    if not (folder / MANIFEST).is_file():
        raise PackageError(f"{archive}: {MANIFEST} is not in it")


def _check_member(member: zipfile.ZipInfo, archive: str) -> None:
    """Refuse names that leave the folder, links, passwords, and kinds no package holds."""
    name, path = member.filename, PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise PackageError(f"{archive}: {name!r}: leaves the folder of the package")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        raise PackageError(f"{archive}: {name!r}: is no file")
    if member.flag_bits & 1:
        raise PackageError(f"{archive}: {name!r}: is encrypted")
    if path.suffix not in LISTED | UNLISTED:
        raise PackageError(f"{archive}: {name!r}: is of a kind that no package holds")
