"""What a destination takes is asked over real associations, and no object is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

import node.results
from node.delivery.folder import FolderTarget, FolderTargetSettings
from node.interfaces import Offer
from node.plugins import names_of
from node.probing import (
    TRANSFER_SYNTAXES,
    Outlook,
    all_offers,
    outlook,
    probe_destination,
    propose,
    sop_classes_of_objects,
)
from node.result_profiles import FindingKind, Profile, read_profiles, shipped_profiles
from tests.end_to_end.processes import free_port
from tests.node.delivery.choosy_pacs import ChoosyPacs
from tests.node.delivery.objects import target_at

CLASSES: Final = sop_classes_of_objects()
EVERYTHING: Final = frozenset(offer.sop_class_uid for offer in all_offers())
EXPLICIT, IMPLICIT = str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return read_profiles([shipped_profiles()], names_of(node.results))


def classes_of(*objects: str) -> frozenset[str]:
    return frozenset(uid for name in objects for uid in CLASSES[name])


def test_every_class_and_syntax_is_asked_and_nothing_is_sent(profiles: dict[str, Profile]) -> None:
    """VIEW-01."""
    with ChoosyPacs(EVERYTHING) as pacs:
        probe = probe_destination(target_at(pacs.port), list(profiles.values()))
        assert (pacs.kept, pacs.asked.total()) == ([], 0)
    assert set(probe.classes()) == EVERYTHING
    assert set(probe.classes().values()) == {tuple(TRANSFER_SYNTAXES)}
    assert probe.negotiated.refused == {}
    assert probe.taken == set(CLASSES)
    assert probe.proposal is profiles["full"]


def test_more_offers_than_one_association_has_contexts_for_are_all_asked() -> None:
    offers = [
        Offer(sop_class_uid=f"1.2.3.{number}", transfer_syntax_uid=EXPLICIT)
        for number in range(300)
    ]
    with ChoosyPacs([f"1.2.3.{number}" for number in range(0, 300, 2)]) as pacs:
        found = target_at(pacs.port).negotiate(offers)
        assert pacs.associations == 3
    assert found.accepted == set(offers[::2])
    assert set(found.refused) == set(offers[1::2])


def test_what_is_refused_is_told_with_the_reason(profiles: dict[str, Profile]) -> None:
    takes = classes_of("text_report", "secondary_capture")
    with ChoosyPacs(takes, syntaxes=[IMPLICIT]) as pacs:
        probe = probe_destination(target_at(pacs.port), list(profiles.values()))
    seg, text = CLASSES["segmentation"][0], CLASSES["text_report"][0]
    assert probe.classes()[seg] == ()
    assert probe.classes()[text] == (IMPLICIT,)
    reasons = {
        (offer.sop_class_uid, offer.transfer_syntax_uid): reason
        for offer, reason in probe.negotiated.refused.items()
    }
    assert reasons[seg, EXPLICIT] == f"the destination takes no SOP class {seg}"
    assert "but not as" in reasons[text, EXPLICIT]
    assert probe.taken == {"text_report", "secondary_capture"}


@pytest.mark.parametrize(
    ("objects", "proposal"),
    [
        (("secondary_capture", "text_report"), "pacs-basic"),
        (("secondary_capture", "presentation_state", "text_report"), "pacs-basic"),
        (("mammography_cad_report", "secondary_capture", "presentation_state"), "mg-cad"),
        (("segmentation", "measurement_report", "key_object", "text_report"), "air"),
        (("segmentation", "measurement_report", "text_report"), "standard"),
        (tuple(CLASSES), "full"),
        (("text_report",), None),
        ((), None),
    ],
)
def test_the_profile_that_fits_what_is_taken_is_proposed(
    objects: tuple[str, ...], proposal: str | None, profiles: dict[str, Profile]
) -> None:
    """VIEW-01: none of a viewer is ever proposed, as nobody can tell by negotiation."""
    found = propose(profiles.values(), objects)
    assert (found.name if found else None) == proposal


def test_what_would_arrive_is_told_with_what_is_refused_before(
    profiles: dict[str, Profile],
) -> None:
    installed = {"segmentation", "secondary_capture", "text_report"}
    found = outlook(
        profiles["ohif"], FindingKind.SEGMENTATION, taken={"text_report"}, installed=installed
    )
    refused = ("segmentation", "secondary_capture")
    assert found == [
        Outlook(arrives="text_report", refused=refused),
        Outlook(arrives="text_report", refused=()),
    ]
    nothing = outlook(
        profiles["pacs-basic"], FindingKind.NOT_ANALYSED, taken=(), installed=["text_report"]
    )
    assert nothing == [Outlook(arrives="", refused=("text_report",))]


def test_a_destination_that_is_not_there_is_a_problem_not_a_refusal(
    profiles: dict[str, Profile],
) -> None:
    probe = probe_destination(target_at(free_port()), list(profiles.values()))
    assert "Connection refused" in probe.negotiated.problem
    assert (probe.classes(), probe.taken, probe.proposal) == ({}, frozenset(), None)


def test_a_folder_takes_everything(tmp_path: Path, profiles: dict[str, Profile]) -> None:
    target = FolderTarget(FolderTargetSettings(folder=tmp_path))
    assert probe_destination(target, list(profiles.values())).proposal is profiles["full"]
