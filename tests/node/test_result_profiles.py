"""Result profiles: what ships is sound, what a site writes is checked, and who gets what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

import node.results
from node.doors import build_profiles
from node.interfaces import ResultWriter
from node.plugins import discover, names_of
from node.result_profiles import (
    CARRIES_EVERYTHING,
    DEFAULT,
    PLANNED,
    FindingKind,
    Profile,
    ProfileError,
    ResultProfiles,
    plan,
    read_profiles,
    shipped_profiles,
)
from node.settings import load_settings
from storage.records import NewDelivery

SHIPPED: Final = ("air", "full", "mg-cad", "ohif", "pacs-basic", "slicer", "standard", "weasis")
INSTALLED: Final = frozenset({"segmentation", "measurement_report", CARRIES_EVERYTHING})
SOUND: Final = """
description = "A site's own."
[objects]
default = [["segmentation", "text_report"], ["*", "text_report"]]
not_analysed = [["text_report"]]
"""
CONFIGURATION: Final = """
[listeners.dimse]
allow_any_peer = true
[destinations.pacs]
kind = "folder"
folder = "/srv/pacs"
[destinations.viewer]
kind = "folder"
folder = "/srv/viewer"
profile = "ohif"
"""


def written(folder: Path, text: str, name: str = "site") -> Profile:
    """Read a profile with this text."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(text)
    return read_profiles([folder], INSTALLED)[name]


def refusal(folder: Path, text: str, name: str = "site") -> str:
    """Return why a profile is refused."""
    with pytest.raises(ProfileError) as raised:
        written(folder, text, name)
    return str(raised.value)


def shipped() -> dict[str, Profile]:
    return read_profiles([shipped_profiles()], names_of(node.results))


# ---------------------------------------------------------------- those that ship


def test_seven_profiles_ship() -> None:
    assert tuple(sorted(shipped())) == SHIPPED
    assert DEFAULT in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("kind", FindingKind)
def test_a_shipped_profile_is_never_silent_and_names_what_its_objects_refer_to(
    name: str, kind: FindingKind
) -> None:
    """An object that refers to another goes where that one goes, too."""
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]
    sets = shipped()[name].sets(kind, frozenset(writers))
    named = {item for each in sets for item in each}
    assert CARRIES_EVERYTHING in named
    if kind is FindingKind.SEGMENTATION:
        assert {item for one in named for item in writers[one].needs} <= named


def test_the_object_that_carries_everything_does_not_ask_what_was_found() -> None:
    text = discover(node.results, ResultWriter)[CARRIES_EVERYTHING]  # type: ignore[type-abstract]
    assert text().handles(object())  # type: ignore[arg-type]  # whatever comes


def test_what_is_needed_is_written_before() -> None:
    for writer in discover(node.results, ResultWriter).values():  # type: ignore[type-abstract]
        assert set(writer.needs) <= set(writer.follows)


def test_every_writer_says_which_sop_classes_it_makes() -> None:
    writers = discover(node.results, ResultWriter)  # type: ignore[type-abstract]
    silent = [name for name, writer in writers.items() if not writer.sop_class_uids]
    assert [name for name in silent if name not in PLANNED] == []


def test_boxes_go_to_ohif_but_not_on_pixels_that_it_draws_them_wrong_on() -> None:
    """VIEW-02: the rest of the set goes instead; every other profile makes no difference."""
    installed = names_of(node.results)
    square, oblong = FindingKind.SEGMENTATION, FindingKind.SEGMENTATION_OBLONG
    for profile in shipped().values():
        left = profile.left_out(oblong, installed)
        assert left == (("box_report",) if profile.name == "ohif" else ())
        assert profile.left_out(square, installed) == ()
        if not left:
            assert profile.sets(oblong, installed) == profile.sets(square, installed)


@pytest.mark.parametrize("kind", FindingKind)
def test_air_10_what_goes_for_ai_results_is_carried_by_no_picture(kind: FindingKind) -> None:
    """Nor by marks, by a document to read, or by what is drawn for other machines."""
    installed = names_of(node.results)
    named = {item for each in shipped()["air"].sets(kind, installed) for item in each}
    assert named <= {
        "segmentation",
        "measurement_report",
        "classification_report",
        "bulk_annotations",
        "key_object",
        CARRIES_EVERYTHING,
    }


def test_full_sends_whatever_is_installed_but_what_must_be_named() -> None:
    """A writer's file is all that is needed."""
    installed = {*names_of(node.results), "brand_new", "encapsulated_pdf"}
    for kind in FindingKind:
        named = {item for each in shipped()["full"].sets(kind, installed) for item in each}
        assert {*installed} - PLANNED.keys() <= named
        assert "encapsulated_pdf" not in named


# ---------------------------------------------------------------- what a site writes


def test_a_sites_profile_is_read_and_a_kind_without_a_line_has_the_default(tmp_path: Path) -> None:
    profile = written(tmp_path, SOUND)
    assert profile.sets(FindingKind.NOT_ANALYSED, INSTALLED) == (("text_report",),)
    assert profile.sets(FindingKind.SEGMENTATION, INSTALLED) == (
        ("segmentation", "text_report"),
        ("measurement_report", "text_report"),
    )


def test_what_a_profile_leaves_out_where_pixels_are_oblong_is_told_by_destination(
    tmp_path: Path,
) -> None:
    lines = 'segmentation = [["segmentation"], ["text_report"]]\nsegmentation_oblong'
    profile = written(tmp_path, SOUND.replace("not_analysed", lines))
    profiles = ResultProfiles(
        profiles={"site": profile, DEFAULT: shipped()[DEFAULT]},
        destinations={"viewer": "site", "pacs": DEFAULT},
        installed=INSTALLED,
    )
    told = profiles.left_out(FindingKind.SEGMENTATION_OBLONG, ["pacs", "viewer"])
    assert told == {"viewer": ("segmentation",)}
    assert profiles.left_out(FindingKind.SEGMENTATION, ["pacs", "viewer"]) == {}


def test_what_is_not_installed_is_passed_over(tmp_path: Path) -> None:
    profile = written(tmp_path, SOUND.replace('["segmentation"', '["secondary_capture"'))
    assert profile.sets(FindingKind.SEGMENTATION, INSTALLED)[0] == ("text_report",)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("not_analysed", "not_analyzed", "objects.not_analyzed: is not known here"),
        ('description = "A site\'s own."', "", "description: is missing"),
        ('["segmentation"', '["segmentatoin"', "objects.default: 'segmentatoin' is not one of"),
        ('[["text_report"]]', '[["segmentation"]]', "must name text_report in one of its sets"),
        ('[["text_report"]]', "[]", "objects.not_analysed: needs at least one item"),
        ('[["text_report"]]', "[[]]", "objects.not_analysed[0]: needs at least one item"),
        ('[["text_report"]]', '["text_report"]', "objects.not_analysed[0]: must be a list"),
        ('["*", "text_report"]', '["text_report", "*"]', '"*" can only be the first of a set'),
        ('["*",', '["text_report",', "an object stands twice in one set"),
        ('"*"', '"Text SR"', "objects.default[1][0]: must match pattern"),
        ("[objects]", "[objects", "not TOML"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_file_and_key(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    assert old in SOUND
    message = refusal(tmp_path, SOUND.replace(old, new))
    assert message.startswith(f"{tmp_path}/site.toml: ")
    assert reason in message


def test_a_name_must_fit_into_a_configuration_file(tmp_path: Path) -> None:
    assert "small letters" in refusal(tmp_path, SOUND, "My Profile")


def test_a_profile_cannot_hide_another_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "full.toml").write_text(SOUND)
    with pytest.raises(ProfileError, match="there is a profile full already"):
        read_profiles([shipped_profiles(), tmp_path], names_of(node.results))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="nowhere: there is no such folder"):
        read_profiles([tmp_path / "nowhere"], INSTALLED)


# ---------------------------------------------------------------- the configuration


def configured(folder: Path, text: str) -> ResultProfiles:
    (folder / "wetread.toml").write_text(text)
    return build_profiles(load_settings(folder / "wetread.toml"))


def test_a_destination_has_the_profile_that_it_names_or_full(tmp_path: Path) -> None:
    profiles = configured(tmp_path, CONFIGURATION)
    assert profiles.of("pacs").name == DEFAULT
    assert profiles.of("viewer").name == "ohif"
    assert profiles.of("went away").name == DEFAULT


def test_a_profile_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"destinations.viewer.profile: 'osirix' is not one of"):
        configured(tmp_path, CONFIGURATION.replace('"ohif"', '"osirix"'))


def test_a_sites_folder_is_relative_to_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/site.toml").write_text(SOUND)
    text = f'{CONFIGURATION.replace("ohif", "site")}[profiles]\nfolders = ["own"]'
    assert configured(tmp_path, text).of("viewer").description == "A site's own."


def test_what_a_profile_in_use_names_and_nobody_makes_is_told(tmp_path: Path) -> None:
    own = tmp_path / "own"
    written(own, SOUND.replace('["segmentation"', '["chest_cad_report"'))
    text = f'{CONFIGURATION.replace("ohif", "site")}[profiles]\nfolders = ["own"]'
    assert configured(tmp_path, text).not_installed()["site"] == ("chest_cad_report",)


# ---------------------------------------------------------------- who gets what


def profiles_of(folder: Path, **destinations: str) -> ResultProfiles:
    (folder / "site.toml").write_text(SOUND)
    (folder / "text.toml").write_text(
        'description = "Text."\n[objects]\ndefault = [["text_report"]]'
    )
    profiles = read_profiles([shipped_profiles(), folder], names_of(node.results))
    return ResultProfiles(profiles=profiles, destinations=destinations, installed=INSTALLED)


def test_what_no_destination_wants_is_not_made(tmp_path: Path) -> None:
    profiles = profiles_of(tmp_path, viewer="text", pacs="site")
    assert profiles.wanted(["viewer"])["segmentation"] == ("text_report",)
    assert set(profiles.wanted(["viewer", "pacs"])["segmentation"]) == INSTALLED
    assert profiles.wanted(["pacs"])["not_analysed"] == ("text_report",)


def test_each_destination_gets_what_its_profile_says_of_what_was_made(tmp_path: Path) -> None:
    profiles = profiles_of(tmp_path, viewer="text", pacs="site")
    made = ("segmentation", "measurement_report", "text_report")
    found = profiles.deliveries(FindingKind.SEGMENTATION, ("pacs", "viewer", "pacs"), made)
    assert found == (
        NewDelivery(destination="pacs", result=0, fallbacks=((2,),)),
        NewDelivery(destination="pacs", result=1, fallbacks=((2,),)),
        NewDelivery(destination="pacs", result=2, reserved=True),
        NewDelivery(destination="viewer", result=2),
    )


def planned(sets: Sequence[Sequence[str]], *made: str) -> list[NewDelivery]:
    return list(plan(sets, "pacs", made))


def test_what_could_not_be_made_leaves_its_place_to_the_next() -> None:
    (only,) = planned([["a", "b"]], "b")
    assert (only.result, only.reserved, only.fallbacks) == (0, False, ())


def test_all_objects_of_a_writer_stand_in_together() -> None:
    first, *others = planned([["a", "b"]], "a", "b", "b")
    assert first.fallbacks == ((1, 2),)
    assert [item.reserved for item in others] == [True, True]


def test_what_another_set_sends_anyway_is_not_in_reserve() -> None:
    assert [item.reserved for item in planned([["a", "b"], ["b"]], "a", "b")] == [False, False]


def test_a_stand_in_has_behind_it_what_was_behind_what_it_stands_in_for() -> None:
    (a, b, _) = planned([["a", "b"], ["c", "a", "d"]], "a", "b", "d")
    assert a.fallbacks == ((1,), (2,))
    assert b.fallbacks == ((2,),)
