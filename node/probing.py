"""What a destination takes, by negotiation, and what follows for its result profile."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

import node.results
from node.interfaces import DeliveryTarget, Negotiated, Offer, ResultWriter, SettingsT
from node.plugins import discover
from node.result_profiles import PLANNED, FindingKind, Profile

PLAIN: Final = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
"""What results are sent as: the second is made of the first where a destination takes only that."""
TRANSFER_SYNTAXES: Final[Mapping[str, str]] = {
    PLAIN[0]: "Explicit LE",
    PLAIN[1]: "Implicit LE",
    str(DeflatedExplicitVRLittleEndian): "Deflated",
    str(RLELossless): "RLE",
    str(JPEGLSLossless): "JPEG-LS",
    str(JPEG2000Lossless): "JPEG 2000",
    str(JPEGBaseline8Bit): "JPEG",
}
"""What a result may be in, and a short name for each."""
LABEL_MAP: Final = "1.2.840.10008.5.1.4.1.1.66.7"
OTHER_CLASSES: Final = (
    LABEL_MAP,
    "1.2.840.10008.5.1.4.1.1.88.11",
    "1.2.840.10008.5.1.4.1.1.88.33",
)
"""Other forms of segmentations and reports that a site may want to know of."""
NAMES: Final[Mapping[str, str]] = {LABEL_MAP: "Label Map Segmentation Storage"}
"""Of UIDs that pydicom 3.0.2 does not know."""


def name_of_uid(uid: str) -> str:
    """Return the name of a SOP class (PS3.6 annex A)."""
    return NAMES.get(uid, UID(uid).name)


def sop_classes_of_objects() -> dict[str, tuple[str, ...]]:
    """Return what each result object can be: those with a writer, and those that may get one."""
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]  # a plugin base
    own = {name: writer.sop_class_uids for name, writer in writers.items()}
    return {**PLANNED, **{name: uids or PLANNED.get(name, ()) for name, uids in own.items()}}


def all_offers() -> list[Offer]:
    """Return every result SOP class in every transfer syntax that results may be in."""
    classes = {uid for uids in sop_classes_of_objects().values() for uid in uids}
    return [
        Offer(sop_class_uid=uid, transfer_syntax_uid=syntax)
        for uid in sorted({*classes, *OTHER_CLASSES}, key=_by_number)
        for syntax in TRANSFER_SYNTAXES
    ]


def _by_number(uid: str) -> tuple[int, ...]:
    return tuple(map(int, uid.split(".")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What would come of one set of a profile: what arrives, and what is refused before it."""

    arrives: str  # "": nothing of the set
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a destination said, and the profile that fits it best; None: none does."""

    negotiated: Negotiated
    taken: frozenset[str]  # result objects
    proposal: Profile | None

    def classes(self) -> dict[str, tuple[str, ...]]:
        """Return the transfer syntaxes that are taken, of each SOP class that was offered."""
        offers = {*self.negotiated.accepted, *self.negotiated.refused}
        return {
            uid: tuple(
                syntax
                for syntax in TRANSFER_SYNTAXES
                if Offer(sop_class_uid=uid, transfer_syntax_uid=syntax) in self.negotiated.accepted
            )
            for uid in sorted({offer.sop_class_uid for offer in offers}, key=_by_number)
        }


def probe_destination(target: DeliveryTarget[SettingsT], profiles: Collection[Profile]) -> Probe:
    """Ask a destination what it takes, without data, and choose a profile for it."""
    negotiated = target.negotiate(all_offers())
    taken = frozenset(
        name
        for name, uids in sop_classes_of_objects().items()
        if any(
            Offer(sop_class_uid=uid, transfer_syntax_uid=syntax) in negotiated.accepted
            for uid in uids
            for syntax in PLAIN
        )
    )
    return Probe(negotiated=negotiated, taken=taken, proposal=propose(profiles, taken))


def propose(profiles: Collection[Profile], taken: Collection[str]) -> Profile | None:
    """Return the profile that asks most of a destination, of those that ask no more than it takes.

    Which viewer reads what the destination keeps cannot be negotiated: a profile that is for one
    asks for nothing, and is never proposed.
    """
    fitting = [
        profile
        for profile in profiles
        if profile.proposed_for is not None and set(profile.proposed_for) <= set(taken)
    ]
    fitting.sort(key=lambda profile: profile.name)
    return max(fitting, key=lambda profile: len(profile.proposed_for or ()), default=None)


def outlook(
    profile: Profile, kind: FindingKind, *, taken: Collection[str], installed: Collection[str]
) -> Sequence[Outlook]:
    """Say what would arrive of a profile for a kind of finding; equal sets once."""
    found: dict[Outlook, None] = {}
    for each in profile.sets(kind, installed):
        arrives = next((name for name in each if name in taken), "")
        refused = each[: each.index(arrives)] if arrives else each
        found[Outlook(arrives=arrives, refused=refused)] = None
    return list(found)
