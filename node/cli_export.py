"""`wetread export`: what the node keeps, as plain DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, out
from node.settings import SettingsError, load_settings
from node.stores import open_stores
from storage.records import InstanceRecord
from storage.states import InstanceState


def export(
    uid: Annotated[str, typer.Argument(help="Study, Series or SOP Instance UID.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if need be.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write received instances as files, named by their SOP Instance UID; nothing is overwritten.

    Other bytes that came under a UID that was known already are written beside it, as `.conflict`
    files named by UID and digest.
    """
    with clear_errors():
        stores = open_stores(load_settings(config))
        try:
            found = stores.studies.instances_named(uid)
            folder.mkdir(parents=True, exist_ok=True)
            for item in found:
                _write(folder / _name(item), stores.packs.read(item.location))
        except OSError as error:
            raise SettingsError(f"{folder}: {error.strerror or error}") from error
        finally:
            stores.database.close()
        out.print(f"{len(found)} files in {folder}", markup=False, soft_wrap=True)


def _name(item: InstanceRecord) -> str:
    if item.state is InstanceState.CURRENT:
        return f"{item.sop_instance_uid}.dcm"
    return f"{item.sop_instance_uid}.{item.digest[:16]}.conflict"


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
