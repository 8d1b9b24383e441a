"""Writes engine packages: arrays and digests, the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import JsonValue

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


def toml_value(value: JsonValue) -> str:
    """Write one value of engine.toml: text, number, truth, or a list or table of those."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return json.dumps(value)


def write_manifest(folder: Path, text: str, files: Sequence[str]) -> None:
    """Write engine.toml: the text, and the digests of the files in `[files]`, its last table."""
    digests = [
        f'"{name}" = "{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"\n'
        for name in sorted(files)
    ]
    whole = f"{text.rstrip()}\n\n[files]\n{''.join(digests)}"
    (folder / "engine.toml").write_text(whole, encoding="utf-8")
