"""Writes engine packages: arrays and digests, the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from engines.base import Array

EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz whose bytes depend on the arrays alone, not on the time of day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, arrays[name], version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, buffer.getvalue())


def write_manifest(folder: Path, text: str, files: Sequence[str]) -> None:
    """Write engine.toml: the text, and the digests of the files in `[files]`, its last table."""
    digests = [
        f'"{name}" = "{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"\n'
        for name in sorted(files)
    ]
    whole = f"{text.rstrip()}\n\n[files]\n{''.join(digests)}"
    (folder / "engine.toml").write_text(whole, encoding="utf-8")
