"""What others say of a study, kept apart from what was received; the studies it matters to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.errors import ConstraintError, NotFoundError
from storage.expectations import ExpectationStore, Said, SaidRecord, SeriesSaid
from storage.states import AssociationState, ExpectationSource, ExpectationState, TransitionError
from tests.storage.holding import QUIET, STUDY, Holding, routing

ARCHIVE, STEP = ExpectationSource.ARCHIVE, ExpectationSource.PROCEDURE_STEP
COUNTED, IN_PROGRESS = ExpectationState.COUNTED, ExpectationState.IN_PROGRESS
COMPLETED = ExpectationState.COUNTED
EVERY = 5.0


@pytest.fixture
def said(held: Holding) -> ExpectationStore:
    return ExpectationStore(held.database, held.clock)


def count(number: int | None, study: str = STUDY, **series: int) -> Said:
    return Said(
        study_instance_uid=study,
        source=ARCHIVE,
        state=COUNTED,
        instances=number,
        series={f"{study}.{uid[1:]}": SeriesSaid(instances=many) for uid, many in series.items()},
    )


def step(uid: str = "2.25.1", study: str = STUDY) -> Said:
    return Said(study_instance_uid=study, source=STEP, state=IN_PROGRESS, reference_uid=uid)


def only(said: ExpectationStore) -> SaidRecord:
    (record,) = said.of([STUDY])[STUDY]
    return record


def test_an_answer_takes_the_place_of_the_one_before(held: Holding, said: ExpectationStore) -> None:
    said.answered(count(5, s1=2, s2=3))
    held.clock.advance(7)
    said.answered(count(4, s2=4))
    record = only(said)
    assert (record.said.instances, dict(record.said.series)) == (
        4,
        {f"{STUDY}.2": SeriesSaid(instances=4)},
    )
    assert record.since == record.said_at == held.clock.now


def test_the_same_answer_again_is_known_since_it_was_first_given(
    held: Holding, said: ExpectationStore
) -> None:
    said.answered(count(5, s1=5))
    first = held.clock.now
    held.clock.advance(7)
    said.answered(count(5, s1=5))
    assert (only(said).since, only(said).said_at) == (first, first + timedelta(seconds=7))


def test_a_step_that_completes_names_its_instances_under_the_study_it_began_with(
    said: ExpectationStore,
) -> None:
    said.announced(step())
    named = {f"{STUDY}.1": SeriesSaid(instances=2, sop_instance_uids=("2.25.7", "2.25.8"))}
    said.updated(STEP, "2.25.1", COMPLETED, named)
    assert only(said).said == Said(
        study_instance_uid=STUDY,
        source=STEP,
        state=COMPLETED,
        reference_uid="2.25.1",
        series=named,
    )


def test_a_message_without_series_leaves_those_that_were_named(said: ExpectationStore) -> None:
    named = {f"{STUDY}.1": SeriesSaid(instances=2)}
    said.announced(step())
    said.updated(STEP, "2.25.1", IN_PROGRESS, named)
    said.updated(STEP, "2.25.1", COMPLETED, None)
    assert only(said).said.series == named


def test_a_step_is_announced_once_and_ends_once(said: ExpectationStore) -> None:
    with pytest.raises(NotFoundError):
        said.updated(STEP, "2.25.1", COMPLETED, None)
    said.announced(step())
    with pytest.raises(ConstraintError):
        said.announced(step(study="1.2.3"))
    said.updated(STEP, "2.25.1", ExpectationState.DISCONTINUED, None)
    with pytest.raises(TransitionError):
        said.updated(STEP, "2.25.1", COMPLETED, None)


def test_two_steps_of_a_study_stand_beside_each_other_and_beside_the_archive(
    said: ExpectationStore,
) -> None:
    for word in (step("2.25.1"), step("2.25.2")):
        said.announced(word)
    said.answered(count(3))
    assert [(item.said.source, item.said.reference_uid) for item in said.of([STUDY])[STUDY]] == [
        (STEP, "2.25.1"),
        (STEP, "2.25.2"),
        (ARCHIVE, ""),
    ]


def test_an_archive_is_asked_once_in_a_while_and_after_each_new_instance(
    held: Holding, said: ExpectationStore
) -> None:
    held.receive(1)
    assert [study.study_instance_uid for study in said.to_ask(EVERY)] == [STUDY]
    said.answered(count(2))
    held.clock.advance(EVERY - 1)
    assert said.to_ask(EVERY) == []
    held.receive(2)
    assert len(said.to_ask(EVERY)) == 1
    said.answered(count(2))
    assert said.to_ask(EVERY) == []
    held.clock.advance(EVERY)
    assert len(said.to_ask(EVERY)) == 1
    held.clock.advance(QUIET + 61)  # due for long: it is not the archive that holds it
    assert said.to_ask(EVERY) == []


def test_a_study_that_is_carried_is_neither_asked_about_nor_hastened(
    held: Holding, said: ExpectationStore
) -> None:
    association = held.associations.opened(
        listener="dimse", calling_ae="A", called_ae="B", peer_address="::1"
    )
    held.receive(1, association_id=association)
    said.answered(count(1))
    held.clock.advance(EVERY)
    study = held.studies.get(STUDY)
    assert (said.to_ask(EVERY), said.counted(), said.hasten(study)) == ([], [], False)
    held.associations.closed(association, AssociationState.RELEASED)
    assert (len(said.to_ask(EVERY)), len(said.counted())) == (1, 1)
    assert said.hasten(study)
    assert [item.id for item in held.studies.due()] == [study.id]


def test_an_association_that_brought_an_earlier_revision_holds_nothing(
    held: Holding, said: ExpectationStore
) -> None:
    association = held.associations.opened(
        listener="dimse", calling_ae="A", called_ae="B", peer_address="::1"
    )
    held.receive(1, association_id=association)
    held.studies.complete_now(STUDY, by="anna")
    held.studies.reopen(STUDY, reason="asked for", by="anna")
    assert len(said.to_ask(EVERY)) == 1


def test_a_study_that_received_more_meanwhile_is_not_hastened(
    held: Holding, said: ExpectationStore
) -> None:
    held.receive(1)
    before = held.studies.get(STUDY)
    held.clock.advance(1)
    held.receive(2)
    assert not said.hasten(before)
    assert held.studies.due() == []


def test_only_what_was_counted_finds_studies(held: Holding, said: ExpectationStore) -> None:
    held.receive(1)
    said.announced(step())
    said.answered(
        Said(
            study_instance_uid=STUDY,
            source=ARCHIVE,
            state=ExpectationState.NOT_KNOWN,
            note="no association",
        )
    )
    assert said.counted() == []
    said.updated(STEP, "2.25.1", COMPLETED, {"1.2": SeriesSaid(instances=1)})
    assert len(said.counted()) == 1


def test_a_cheap_look_tells_when_a_study_may_be_closed_or_routed(
    held: Holding, said: ExpectationStore
) -> None:
    looks = [said.any_to_close_or_route()]
    held.receive(1)
    looks.append(said.any_to_close_or_route())
    held.clock.advance(QUIET + 1)
    looks.append(said.any_to_close_or_route())  # quiet for long enough
    record = held.complete(STUDY)
    looks.append(said.any_to_close_or_route())  # complete, and not routed
    rules = held.rules.save("rules", by="test")
    held.studies.route(record.id, record.revision, routing(rules.revision, 1), 3)
    looks.append(said.any_to_close_or_route())
    assert looks == [False, False, True, True, False]


def test_a_cheap_look_sees_a_number_that_was_given(held: Holding, said: ExpectationStore) -> None:
    held.receive(1)
    said.announced(step())
    assert not said.any_to_close_or_route()
    said.updated(STEP, "2.25.1", COMPLETED, {"1.2": SeriesSaid(instances=1)})
    assert said.any_to_close_or_route()


def test_received_instances_are_told_by_series(held: Holding, said: ExpectationStore) -> None:
    study_id = held.receive(1).study_id
    held.receive(2)
    held.receive(1, series=2)
    held.receive(1, data="other bytes under the same UID")
    assert said.received(study_id) == {
        f"{STUDY}.1": {f"{STUDY}.1.1", f"{STUDY}.1.2"},
        f"{STUDY}.2": {f"{STUDY}.2.1"},
    }


def test_series_of_our_own_results_are_known(held: Holding, said: ExpectationStore) -> None:
    held.deliverable()
    assert said.own_series(held.studies.get(STUDY).id) == {"2.25.7"}


def test_what_was_said_long_ago_is_forgotten(held: Holding, said: ExpectationStore) -> None:
    said.answered(count(2, s1=2))
    held.clock.advance(100)
    said.answered(count(2, study="1.2.3"))
    assert said.forget(held.clock.now) == 2
    assert list(said.of([STUDY, "1.2.3"])) == ["1.2.3"]


def test_waiting_is_told_once_after_each_instance(held: Holding, said: ExpectationStore) -> None:
    held.receive(1)
    for _ in range(2):
        held.clock.advance(1)
        told = said.tell_waiting(held.studies.get(STUDY), {"verdict": "known missing"})
    assert not told
    held.clock.advance(1)
    held.receive(2)
    assert said.tell_waiting(held.studies.get(STUDY), {"verdict": "known missing"})
    assert held.actions() == ["study.received", "study.waits", "study.waits"]
