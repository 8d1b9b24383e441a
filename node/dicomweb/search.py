"""A search as it is asked for: its keys, checked, by level; and what it finds (PS3.18 10.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import groupby, islice
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from node.dicomweb.attributes import (
    FROM_INSTANCE_HEADER,
    FROM_SERIES_HEADER,
    INSTANCE_KEYS,
    MODALITIES,
    SERIES_KEYS,
    STUDY_COLUMNS,
    Json,
    first_text,
    instance_json,
    series_json,
    study_json,
)
from node.dicomweb.reader import Reader
from storage.holdings import HeldInstance, HeldStudy, HoldingStore, StudyMatch

TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
UID_KEYS: Final = frozenset({"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"})
RANGES: Final = frozenset({"DA", "TM"})
MODALITIES_IN_STUDY: Final = "ModalitiesInStudy"
LEVELS: Final = (frozenset({*STUDY_COLUMNS, MODALITIES_IN_STUDY}), frozenset(SERIES_KEYS),
                 frozenset(INSTANCE_KEYS))  # fmt: skip
STUDY, SERIES, INSTANCE = 0, 1, 2
PAGE: Final = 50
LONGEST_VALUE: Final = 1024
MOST_KEYS: Final = 64


class SearchError(Exception):
    """The search cannot be done as it is asked for; the message names no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched for."""

    match: StudyMatch
    series: Mapping[str, str] = field(default_factory=dict)
    instances: Mapping[str, str] = field(default_factory=dict)
    fields: frozenset[int] = frozenset()
    all_fields: bool = False
    limit: int
    offset: int = 0
    fuzzy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Matches, and whether there are more."""

    items: Sequence[Json]
    more: bool


# ---------------------------------------------------------------- keys


def read_search(items: Sequence[tuple[str, str]], level: int, most: int) -> Search:
    """Read the query of an address.

    Raises:
        SearchError: naming the key that is not known at this level, or has no valid value.
    """
    if len(items) > MOST_KEYS or any(len(value) > LONGEST_VALUE for _, value in items):
        raise SearchError("the search is too long")
    keys: dict[str, str] = {}
    fields: set[int] = set()
    control = {"limit": str(most), "offset": "0", "fuzzymatching": "false"}
    all_fields = False
    for name, value in items:
        if name in control:
            control[name] = value
        elif name == "includefield":
            wanted = value.split(",")
            all_fields |= "all" in wanted
            fields |= {_tag(item) for item in wanted if item not in {"", "all"}}
        elif name != "accept":
            keys[_keyword(name, level)] = value
    return Search(
        match=_study_match(keys),
        series=_of_level(keys, SERIES),
        instances=_of_level(keys, INSTANCE),
        fields=frozenset(fields),
        all_fields=all_fields,
        limit=min(_number(control["limit"], "limit"), most),
        offset=_number(control["offset"], "offset"),
        fuzzy=control["fuzzymatching"].lower() == "true",
    )


def _of_level(keys: Mapping[str, str], level: int) -> dict[str, str]:
    return {key: value for key, value in keys.items() if key in LEVELS[level] and value}


def _tag(name: str) -> int:
    tag = int(name, 16) if TAG.fullmatch(name) else tag_for_keyword(name)
    if tag is None:
        raise SearchError(f"includefield: {_shown(name)} is no attribute")
    return tag


def _keyword(name: str, level: int) -> str:
    keyword = keyword_for_tag(int(name, 16)) if TAG.fullmatch(name) else name
    if not any(keyword in keys for keys in LEVELS[: level + 1]):
        raise SearchError(f"{_shown(name)} is no key that can be searched by here")
    return keyword


def _shown(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "?", name)[:64]


def _number(text: str, key: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:  # noqa: PLR2004 - fits in 32 bits
        raise SearchError(f"{key} must be a whole number")
    return int(text)


def _study_match(keys: Mapping[str, str]) -> StudyMatch:
    texts: dict[str, str] = {}
    ranges: dict[str, tuple[str, str]] = {}
    for keyword, value in _of_level(keys, STUDY).items():
        if keyword in UID_KEYS or keyword == MODALITIES_IN_STUDY:
            continue
        vr = dictionary_VR(tag_for_keyword(keyword) or 0)
        if vr in RANGES and "-" in value:
            first, _, last = value.partition("-")
            ranges[STUDY_COLUMNS[keyword]] = (first.strip(), last.strip())
        else:
            texts[STUDY_COLUMNS[keyword]] = value
    modalities = tuple(_listed(keys.get(MODALITIES_IN_STUDY, "")))
    return StudyMatch(
        uids=tuple(_listed(keys.get("StudyInstanceUID", ""))),
        texts=texts,
        ranges=ranges,
        modalities=modalities,
        result_classes=tuple(uid for uid, name in MODALITIES.items() if name in modalities),
    )


def _listed(value: str) -> list[str]:
    return [item for item in re.split(r"[,\\]", value) if item]


def _fits(wanted: Mapping[str, str], value_of: Callable[[str], str]) -> bool:
    """Compare a series or an instance: a list of UIDs, else by value or wild card."""
    for keyword, text in wanted.items():
        value = value_of(keyword)
        if keyword in UID_KEYS or keyword == "SOPClassUID":
            if value not in _listed(text):
                return False
        elif not re.fullmatch(translate(text.replace("[", "[[]")), value):
            return False
    return True


# ---------------------------------------------------------------- finding


class Searcher:
    """Finds studies, series and instances; `address` is what their own addresses begin with."""

    def __init__(self, holdings: HoldingStore, reader: Reader, address: str) -> None:
        self._holdings = holdings
        self._reader = reader
        self._address = address

    def studies(self, search: Search) -> Found:
        """Return studies."""
        held = self._holdings.studies(search.match, limit=search.limit + 1, offset=search.offset)
        items = [study_json(study, self._of(study)) for study in held[: search.limit]]
        return Found(items=items, more=len(held) > search.limit)

    def series(self, search: Search) -> Found:
        """Return series of the studies that match."""
        return _page(self._series(search), search)

    def instances(self, search: Search) -> Found:
        """Return instances of the series and studies that match."""
        tags = () if search.all_fields else _tags(FROM_INSTANCE_HEADER, search.fields)
        first = search.offset if "InstanceNumber" not in search.instances else 0
        candidates = self._candidates(search)
        if first:
            candidates = islice(candidates, first, None)
        told = self._told(candidates, tags, search)
        page = Search(match=search.match, limit=search.limit, offset=search.offset - first)
        return _page(told, page)

    def _of(self, study: HeldStudy) -> str:
        return f"{self._address}/studies/{study.study.study_instance_uid}"

    def _studies(self, search: Search) -> Iterator[HeldStudy]:
        offset = 0
        while held := self._holdings.studies(search.match, limit=PAGE, offset=offset):
            yield from held
            offset += PAGE

    def _series(self, search: Search) -> Iterator[Json]:
        tags = _tags(FROM_SERIES_HEADER, search.fields)
        for study in self._studies(search):
            uid = study.study.study_instance_uid
            attributes = self._holdings.series_attributes(uid)
            counted = _by_series(self._holdings.instances(uid))
            headers = self._reader.headers([held for held, _ in counted], tags)
            above = study_json(study, self._of(study))
            for (held, count), header in zip(counted, headers, strict=True):
                found = series_json(
                    held.series_instance_uid,
                    attributes.get(held.series_instance_uid),
                    header,
                    count,
                    f"{self._of(study)}/series/{held.series_instance_uid}",
                )
                if _fits(search.series, lambda key, found=found: first_text(found, key)):  # type: ignore[misc]
                    yield {**above, **found}

    def _candidates(self, search: Search) -> Iterator[HeldInstance]:
        """Yield instances by what the index knows of them."""
        wanted = {key: text for key, text in search.instances.items() if key != "InstanceNumber"}
        needs_series = set(search.series) - UID_KEYS
        for study in self._studies(search):
            uid = study.study.study_instance_uid
            attributes = self._holdings.series_attributes(uid) if needs_series else {}
            for held in self._holdings.instances(uid):
                known = attributes.get(held.series_instance_uid)
                modality = known.modality if known else MODALITIES.get(held.sop_class_uid, "")
                values = {
                    "SOPInstanceUID": held.sop_instance_uid,
                    "SOPClassUID": held.sop_class_uid,
                    "SeriesInstanceUID": held.series_instance_uid,
                    "Modality": modality,
                    "SeriesNumber": known.series_number if known else "",
                    "SeriesDescription": known.series_description if known else "",
                    "BodyPartExamined": known.body_part_examined if known else "",
                }
                if _fits({**search.series, **wanted}, values.__getitem__):
                    yield held

    def _told(
        self, candidates: Iterable[HeldInstance], tags: tuple[int, ...], search: Search
    ) -> Iterator[Json]:
        wanted = {key: text for key, text in search.instances.items() if key == "InstanceNumber"}
        rest = iter(candidates)
        while held := list(islice(rest, PAGE)):
            for item, header in zip(held, self._reader.headers(held, tags), strict=True):
                address = (
                    f"{self._address}/studies/{item.study_instance_uid}"
                    f"/series/{item.series_instance_uid}/instances/{item.sop_instance_uid}"
                )
                found = instance_json(item, header, address)
                if _fits(wanted, lambda key, found=found: first_text(found, key)):  # type: ignore[misc]
                    yield found


def _page(found: Iterator[Json], search: Search) -> Found:
    items = list(islice(found, search.offset, search.offset + search.limit + 1))
    return Found(items=items[: search.limit], more=len(items) > search.limit)


def _by_series(held: Sequence[HeldInstance]) -> list[tuple[HeldInstance, int]]:
    """Return the first instance of each series, and how many there are."""
    ordered = sorted(held, key=lambda item: item.series_instance_uid)
    counted = []
    for _, group in groupby(ordered, key=lambda item: item.series_instance_uid):
        members = list(group)
        counted.append((members[0], len(members)))
    return counted


def _tags(keywords: Sequence[str], more: frozenset[int]) -> tuple[int, ...]:
    found = {int(tag_for_keyword(keyword) or 0) for keyword in keywords}
    return tuple(sorted(found | more))
