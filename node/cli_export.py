"""`wetread export`: what the node keeps, as plain DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, err, out
from node.settings import SettingsError, load_settings
from node.stores import Stores, open_stores
from storage.digests import InstanceDigest
from storage.records import InstanceRecord
from storage.states import InstanceState


def export(
    uid: Annotated[str, typer.Argument(help="Study, Series or SOP Instance UID.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if need be.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write received instances as files, named by their SOP Instance UID; nothing is overwritten.

    Other bytes that came under a UID that was known already are written beside it, as `.conflict`
    files named by UID and digest. Of bytes that retention deleted it is said when and why, and the
    status is 1.
    """
    with clear_errors():
        stores = open_stores(load_settings(config))
        try:
            found = stores.studies.instances_named(uid)
            folder.mkdir(parents=True, exist_ok=True)
            count = sum(_export(stores, item, folder) for item in found)
            gone = stores.holds.named([item.deletion_id for item in found])
        except OSError as error:
            raise SettingsError(f"{folder}: {error.strerror or error}") from error
        finally:
            stores.database.close()
        out.print(f"{count} files in {folder}", markup=False, soft_wrap=True)
    for item in gone:
        err.print(
            f"bytes deleted by retention on {item.at:%Y-%m-%d %H:%M}Z ({item.rule.value}): "
            f"{item.count} instances",
            markup=False,
            soft_wrap=True,
        )
    if count < len(found):
        raise typer.Exit(1)


def _export(stores: Stores, item: InstanceRecord, folder: Path) -> bool:
    """Write one instance; False: its bytes are gone."""
    if item.deletion_id is not None:
        return False
    content = stores.packs.read(item.location)
    if InstanceDigest(content[len(content) - item.size :]).hexdigest() != item.digest:
        raise SettingsError(f"{item.sop_instance_uid}: its bytes are not those that were received")
    _write(folder / _name(item), content)
    return True


def _name(item: InstanceRecord) -> str:
    if item.state is InstanceState.CURRENT:
        return f"{item.sop_instance_uid}.dcm"
    return f"{item.sop_instance_uid}.{item.digest[:16]}.conflict"


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
