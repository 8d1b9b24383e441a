"""Of what can be made, that is made which somebody wants, with what it refers to."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from engines.findings import Outcome
from node.inference import chosen_writers
from node.result_profiles import FindingKind, kind_of
from tests.node.results import building


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[FindingKind, Outcome]:
    headers = building.series(tmp_path_factory.mktemp("ct"))
    made: tuple[Outcome, ...] = (
        building.analysis(headers),
        building.analysis(building.series(tmp_path_factory.mktemp("oblong"), spacing=(5, 3, 2))),
        building.image_analysis(headers),
        building.nothing_found(headers),
        building.refusal(),
    )
    return {kind_of(outcome): outcome for outcome in made}


def names(outcome: Outcome, objects: Mapping[str, tuple[str, ...]] | None) -> list[str]:
    return [writer.name for writer in chosen_writers(outcome, objects)]


def test_each_kind_of_outcome_is_told_apart(outcomes: dict[FindingKind, Outcome]) -> None:
    assert set(outcomes) == set(FindingKind) - {FindingKind.ANNOTATIONS}


def test_what_nobody_wants_is_not_made(outcomes: dict[FindingKind, Outcome]) -> None:
    wanted = {"segmentation": ("text_report", "segmentation", "key_object")}
    found = names(outcomes[FindingKind.SEGMENTATION], wanted)
    assert set(found) - {"key_object"} == {"segmentation", "text_report"}
    assert names(outcomes[FindingKind.NOT_ANALYSED], wanted) == []


def test_what_another_object_refers_to_is_made_for_it(outcomes: dict[FindingKind, Outcome]) -> None:
    wanted = {"segmentation": ("measurement_report",), "nothing_found": ("measurement_report",)}
    found = names(outcomes[FindingKind.SEGMENTATION], wanted)
    assert found == ["segmentation", "measurement_report"]
    assert names(outcomes[FindingKind.NOTHING_FOUND], wanted) == ["measurement_report"]


def test_without_a_word_on_it_all_is_made(outcomes: dict[FindingKind, Outcome]) -> None:
    found = names(outcomes[FindingKind.SEGMENTATION], None)
    assert {"segmentation", "measurement_report", "text_report"} <= set(found)


def test_every_outcome_can_be_told_in_text(outcomes: dict[FindingKind, Outcome]) -> None:
    for kind, outcome in outcomes.items():
        assert names(outcome, {kind.value: ("text_report",)}) == ["text_report"]
