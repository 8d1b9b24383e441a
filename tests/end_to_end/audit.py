"""What a node holds, against what its senders were told."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from sqlalchemy import func, select

from node.stores import Stores
from storage.models import Receipt
from storage.records import InstanceRecord
from tests.end_to_end.load import Ledger

PAGE = 500


def read_back(stores: Stores, record: InstanceRecord) -> bytes:
    """Return the DICOM file (PS3.10) of an instance, as the node keeps it."""
    return stores.packs.read(record.location)


def receipts(stores: Stores) -> Counter[str]:
    """Return how many acknowledgements the node has written down, by SOP Instance UID."""
    query = select(Receipt.sop_instance_uid, func.count()).group_by(Receipt.sop_instance_uid)
    with stores.database.reading() as session:
        return Counter({uid: count for uid, count in session.execute(query)})  # noqa: C416


def data_set_of(content: bytes, record: InstanceRecord) -> bytes:
    """Return what follows preamble and file meta group: the bytes that travel in a C-STORE.

    Raises:
        ValueError: it is not a whole DICOM file, or names another instance.
    """
    try:
        meta = dcmread(BytesIO(content), specific_tags=["SOPInstanceUID"]).file_meta
    except (InvalidDicomError, EOFError) as error:
        raise ValueError("no DICOM file") from error
    if str(meta.MediaStorageSOPInstanceUID) != record.sop_instance_uid:
        raise ValueError("the file meta group names another instance")
    data_set = content[144 + int.from_bytes(content[140:144], "little") :]
    if len(data_set) != record.size:
        raise ValueError("the data set has another length than its row says")
    return data_set


def visible(stores: Stores) -> Iterator[InstanceRecord]:
    """Yield every instance of the index, conflicts too."""
    offset = 0
    while studies := stores.studies.list(limit=PAGE, offset=offset):
        for study in studies:
            yield from stores.studies.instances(study.id, include_conflicts=True)
        offset += len(studies)


@dataclass(slots=True, kw_only=True)
class Audit:
    """What an audit found; every list but the first three figures must be empty."""

    acknowledged: int = 0  # answers with 0x0000
    instances: int = 0  # of the index
    durable_unanswered: int = 0  # received whole and kept; the answer was lost with the node
    lost: list[str] = field(default_factory=list)  # acknowledged, and not there
    changed: list[str] = field(default_factory=list)  # visible with bytes that nobody sent
    half: list[str] = field(default_factory=list)  # visible and not a whole file
    twice: list[str] = field(default_factory=list)  # the same bytes, two instances
    miscounted: list[str] = field(default_factory=list)  # receipts that do not fit the answers
    not_conserved: int = 0

    def complaints(self) -> dict[str, int]:
        """Return the figures that must be zero."""
        return {
            "acknowledged instances lost": len(self.lost),
            "instances changed": len(self.changed),
            "half instances visible": len(self.half),
            "instances there twice": len(self.twice),
            "instances with wrong receipts": len(self.miscounted),
            "conservation, difference": abs(self.not_conserved),
        }


def audit(stores: Stores, ledger: Ledger) -> Audit:
    """Compare every instance and every receipt with the ledger."""
    found = Audit(acknowledged=sum(ledger.acknowledged.values()))
    there: Counter[tuple[str, bytes]] = Counter()
    for record in visible(stores):
        found.instances += 1
        try:
            data_set = data_set_of(read_back(stores, record), record)
        except (OSError, ValueError):
            found.half.append(record.sop_instance_uid)
            continue
        key = record.sop_instance_uid, hashlib.sha256(data_set).digest()
        there[key] += 1
        if key not in ledger.attempts:
            found.changed.append(record.sop_instance_uid)
    found.lost = [uid for uid, digest in ledger.acknowledged if (uid, digest) not in there]
    found.twice = [uid for (uid, _), count in there.items() if count > 1]
    _audit_receipts(stores, ledger, found)
    found.not_conserved = stores.studies.conservation().missing
    return found


def _audit_receipts(stores: Stores, ledger: Ledger, found: Audit) -> None:
    """Each answer has its own receipt; there is no receipt for what was not received whole."""
    written = receipts(stores)
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for (uid, _), count in ledger.acknowledged.items():
        least[uid] += count
    for (uid, _), count in ledger.attempts.items():
        most[uid] += count
    for uid in written.keys() | most.keys():
        if not least[uid] <= written[uid] <= most[uid]:
            found.miscounted.append(uid)
        found.durable_unanswered += written[uid] - least[uid]
