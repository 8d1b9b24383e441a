"""Result profiles: which objects a destination gets for each kind of finding, and what instead.

A profile is a TOML file: those that ship lie in `node/profiles`, a site's own in the folders of its
configuration. Result objects are named as their writers are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from engines.findings import Analysis, ImageAnalysis, Outcome, Refusal
from engines.images import Grid
from node.strict_toml import TableError, check_table, read_toml
from storage.records import NewDelivery

DEFAULT: Final = "standard"
"""The profile of a destination that names none."""
OTHERS: Final = "*"
"""In a set: every other installed object, but those that are sent only where they are named."""
CARRIES_EVERYTHING: Final = "text_report"
"""The object that carries every outcome: where it is named, nothing ends in silence."""
SUFFIX: Final = ".toml"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

PLANNED: Final[Mapping[str, tuple[str, ...]]] = {
    "presentation_state": ("1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.2"),
    "secondary_capture": ("1.2.840.10008.5.1.4.1.1.7",),
    "multiframe_capture": ("1.2.840.10008.5.1.4.1.1.7.4",),
    "key_object": ("1.2.840.10008.5.1.4.1.1.88.59",),
    "label_map": ("1.2.840.10008.5.1.4.1.1.66.7",),
    "box_report": ("1.2.840.10008.5.1.4.1.1.88.34",),
    "parametric_map": ("1.2.840.10008.5.1.4.1.1.30",),
    "rt_structure_set": ("1.2.840.10008.5.1.4.1.1.481.3",),
    "encapsulated_pdf": ("1.2.840.10008.5.1.4.1.1.104.1",),
    "mammography_cad_report": ("1.2.840.10008.5.1.4.1.1.88.50",),
    "chest_cad_report": ("1.2.840.10008.5.1.4.1.1.88.65",),
}
"""Result objects that are sent only where a profile names them, and their SOP classes. Where no
writer of one is installed it is passed over, and a start says so; other names must be a writer's.
"""

SQUARE: Final = 1e-3
"""Pixels are square whose sides differ by less than this share: half a pixel over an image."""

Object: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]*)$")]
ObjectSet: TypeAlias = Annotated[tuple[Object, ...], Field(min_length=1)]
ObjectSets: TypeAlias = Annotated[tuple[ObjectSet, ...], Field(min_length=1)]


class ProfileError(Exception):
    """A profile is wrong or not there; the message names the file, the key and what is allowed."""


class FindingKind(StrEnum):
    """What a job found, as far as it decides which objects can carry it."""

    SEGMENTATION = "segmentation"
    SEGMENTATION_OBLONG = "segmentation_oblong"
    CLASSIFICATION = "classification"
    ANNOTATIONS = "annotations"
    NOTHING_FOUND = "nothing_found"
    NOT_ANALYSED = "not_analysed"


def kind_of(outcome: Outcome) -> FindingKind:
    """Return which kind of finding an outcome is."""
    if isinstance(outcome, Refusal):
        return FindingKind.NOT_ANALYSED
    if not outcome.findings:
        return FindingKind.NOTHING_FOUND
    if isinstance(outcome, Analysis):
        square = _has_square_pixels(outcome.grid)
        return FindingKind.SEGMENTATION if square else FindingKind.SEGMENTATION_OBLONG
    if isinstance(outcome, ImageAnalysis):
        return FindingKind.CLASSIFICATION
    return FindingKind.ANNOTATIONS


def _has_square_pixels(grid: Grid) -> bool:
    _, rows, columns = grid.spacing
    return math.isclose(rows, columns, rel_tol=SQUARE)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectTable(_Table):
    """[objects]: sets of result objects, each in order of preference."""

    default: ObjectSets = Field(
        description="For every kind of finding without a line of its own: a list of sets. Of each "
        "set the first object that can carry the finding is sent; the next one if it is refused."
    )
    segmentation: ObjectSets | None = Field(None, description="Segments of an image series.")
    segmentation_oblong: ObjectSets | None = Field(
        None,
        description="The same where pixels are not square, for a viewer that draws some object in "
        "the wrong place then: what `segmentation` names and this does not is left out, and the "
        "job says so. Not given: as `segmentation`.",
    )
    classification: ObjectSets | None = Field(None, description="What is in whole images.")
    annotations: ObjectSets | None = Field(None, description="Outlines on a slide, in bulk.")
    nothing_found: ObjectSets | None = Field(None, description="Analysed, and nothing was found.")
    not_analysed: ObjectSets | None = Field(None, description="Not analysed, with the reason.")

    @field_validator("*")
    @classmethod
    def _is_sound(cls, sets: ObjectSets | None) -> ObjectSets | None:
        for each in sets or ():
            if len(set(each)) < len(each):
                raise ValueError(f"an object stands twice in one set: {', '.join(each)}")
            if OTHERS in each[1:]:
                raise ValueError(f'"{OTHERS}" can only be the first of a set')
        if sets is not None and not any(CARRIES_EVERYTHING in each for each in sets):
            raise ValueError(
                f"must name {CARRIES_EVERYTHING} in one of its sets: no other object carries every "
                "outcome, and none may be silent"
            )
        return sets

    def of(self, kind: FindingKind) -> ObjectSets:
        """Return the sets of a kind of finding as they are written."""
        own: ObjectSets | None = getattr(self, kind.value)
        if own is None and kind is FindingKind.SEGMENTATION_OBLONG:
            own = self.segmentation
        return self.default if own is None else own


class ProfileFile(_Table):
    """A result profile; its name is that of its file."""

    description: str = Field(min_length=1, description="For whom it is, in a line.")
    proposed_for: tuple[Object, ...] | None = Field(
        None,
        description="Objects that a destination must take for `wetread destinations probe` to "
        "propose it; the profile with most of them is. Not given: it is never proposed.",
    )
    objects: ObjectTable = Field(description="Which objects are sent.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One profile, and the file it came from."""

    name: str
    path: Path
    description: str
    objects: ObjectTable
    proposed_for: tuple[str, ...] | None = None

    def sets(self, kind: FindingKind, installed: Collection[str]) -> tuple[ObjectSet, ...]:
        """Return the sets of a kind of finding, without what is not installed."""
        sets = self.objects.of(kind)
        named = {name for each in sets for name in each}
        others = sorted({*installed} - named - PLANNED.keys())
        spelt = [
            (first, *each[1:])
            for each in sets
            for first in (others if each[0] == OTHERS else each[:1])
        ]
        there = [tuple(name for name in each if name in installed) for each in spelt]
        return tuple(each for each in there if each)

    def left_out(self, kind: FindingKind, installed: Collection[str]) -> tuple[str, ...]:
        """Return the objects that it sends of segments, but not where pixels are not square."""
        if kind is not FindingKind.SEGMENTATION_OBLONG:
            return ()
        usual, left = (
            {name for each in self.sets(one, installed) for name in each}
            for one in (FindingKind.SEGMENTATION, kind)
        )
        return tuple(sorted(usual - left))

    def named(self) -> dict[str, str]:
        """Return every object that it names, and the first key that does."""
        proposed = dict.fromkeys(self.proposed_for or (), "proposed_for")
        return proposed | {
            name: f"objects.{key}"
            for key in reversed(ObjectTable.model_fields)
            for each in getattr(self.objects, key) or ()
            for name in each
            if name != OTHERS
        }


def shipped_profiles() -> Path:
    """Return the folder of the profiles that ship."""
    return Path(__file__).parent / "profiles"


def read_profiles(folders: Sequence[Path], installed: Collection[str]) -> dict[str, Profile]:
    """Read every profile of some folders, by name.

    Raises:
        ProfileError: naming the file, the key path, and what is wrong.
    """
    found: dict[str, Profile] = {}
    for path in _files(folders):
        profile = _read(path, installed)
        if profile.name in found:
            raise ProfileError(
                f"{path}: there is a profile {profile.name} already: {found[profile.name].path}"
            )
        found[profile.name] = profile
    return found


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise ProfileError(f"{folder}: there is no such folder of profiles")
        yield from sorted(folder.glob(f"*{SUFFIX}"))


def _read(path: Path, installed: Collection[str]) -> Profile:
    if not NAME.fullmatch(path.stem):
        raise ProfileError(f"{path}: a profile's name has small letters, digits, - and _")
    try:
        file = check_table(read_toml(path.read_text(encoding="utf-8")), ProfileFile)
    except (OSError, UnicodeDecodeError, TableError) as error:
        raise ProfileError(f"{path}: {error}") from error
    profile = Profile(
        name=path.stem,
        path=path,
        description=file.description,
        objects=file.objects,
        proposed_for=file.proposed_for,
    )
    known = {*installed, *PLANNED}
    for name, key in profile.named().items():
        if name not in known:
            raise ProfileError(f"{path}: {key}: {name!r} is not one of {sorted(known)}")
    return profile


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultProfiles:
    """Who gets what: the profiles, which destination has which, and which writers there are.

    Destinations `rejecting` what is superseded get a note of it.
    """

    profiles: Mapping[str, Profile]
    destinations: Mapping[str, str]
    installed: frozenset[str]
    rejecting: frozenset[str] = frozenset()

    def of(self, destination: str) -> Profile:
        """Return a destination's profile; for one that is not configured any more, the default."""
        return self.profiles[self.destinations.get(destination, DEFAULT)]

    def not_installed(self) -> dict[str, tuple[str, ...]]:
        """Return, by profile that is in use, the objects it names that cannot be made here."""
        used = {self.of(name).name: self.of(name) for name in self.destinations}
        missing = {
            name: tuple(sorted(set(profile.named()) - self.installed))
            for name, profile in used.items()
        }
        return {name: objects for name, objects in missing.items() if objects}

    def wanted(self, destinations: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the objects that any of the destinations may get, by kind of finding."""
        return {
            kind.value: tuple(
                sorted(
                    {
                        name
                        for destination in destinations
                        for each in self.of(destination).sets(kind, self.installed)
                        for name in each
                    }
                )
            )
            for kind in FindingKind
        }

    def left_out(
        self, kind: FindingKind, destinations: Sequence[str]
    ) -> dict[str, tuple[str, ...]]:
        """Return, by destination, the objects that its viewer would draw in the wrong place."""
        found = {name: self.of(name).left_out(kind, self.installed) for name in destinations}
        return {name: objects for name, objects in found.items() if objects}

    def deliveries(
        self, kind: FindingKind, destinations: Sequence[str], made: Sequence[str]
    ) -> tuple[NewDelivery, ...]:
        """Plan who gets which of the objects that were made; `made` is the writer of each."""
        return tuple(
            new
            for destination in dict.fromkeys(destinations)
            for new in plan(self.of(destination).sets(kind, self.installed), destination, made)
        )


def plan(
    sets: Sequence[Sequence[str]], destination: str, made: Sequence[str]
) -> Iterator[NewDelivery]:
    """Yield what goes to a destination: the first of each set that was made, others in reserve."""
    chains = [[name for name in each if name in made] for each in sets]
    first = {chain[0] for chain in chains if chain}
    behind = _behind(chains)
    for index, name in enumerate(made):
        if name in behind:
            yield NewDelivery(
                destination=destination,
                result=index,
                fallbacks=tuple(_indices(made, other) for other in behind[name]),
                reserved=name not in first,
            )


def _indices(made: Sequence[str], name: str) -> tuple[int, ...]:
    return tuple(index for index, writer in enumerate(made) if writer == name)


def _behind(chains: Sequence[Sequence[str]]) -> dict[str, dict[str, None]]:
    """Return what goes in the place of each object, in order, over all sets that it stands in.

    What stands in for an object of several sets stands in for it in each: what is behind it in
    the others is behind the stand-in too.
    """
    behind: dict[str, dict[str, None]] = {}
    for chain in chains:
        for place, name in enumerate(chain):
            behind.setdefault(name, {}).update(dict.fromkeys(chain[place + 1 :]))
    size = -1
    while size != (size := sum(map(len, behind.values()))):
        for others in behind.values():
            names = list(others)
            for place, name in enumerate(names):
                rest = (other for other in names[place + 1 :] if other != name)
                behind[name].update(dict.fromkeys(rest))
    return behind
