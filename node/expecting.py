"""Keeps what procedure steps and notifications say; the errors of storage become statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from node.expectation import (
    EndedStep,
    Expectation,
    ExpectationError,
    ExpectationKind,
    KnownAlready,
    NotKeptNow,
    StepState,
    UnknownStep,
)
from storage.errors import ConstraintError, DataRefusedError, NotFoundError, StorageError
from storage.expectations import ExpectationStore, Said, SeriesSaid
from storage.states import ExpectationSource, ExpectationState, TransitionError

STATES: Final[Mapping[StepState, ExpectationState]] = {
    StepState.IN_PROGRESS: ExpectationState.IN_PROGRESS,
    StepState.COMPLETED: ExpectationState.COUNTED,
    StepState.DISCONTINUED: ExpectationState.DISCONTINUED,
}


def keep_expectation(store: ExpectationStore, expectation: Expectation) -> None:
    """Keep what is said that a study has, for `Ingest.expected`.

    Raises:
        ExpectationError: with the status to answer.
    """
    try:
        _keep(store, expectation)
    except NotFoundError as error:
        raise UnknownStep("there is no such procedure step") from error
    except TransitionError as error:
        raise EndedStep("Performed Procedure Step Object may no longer be updated") from error
    except ConstraintError as error:
        raise KnownAlready("this SOP Instance UID is known already") from error
    except DataRefusedError as error:
        raise ExpectationError("it cannot be kept") from error
    except StorageError as error:
        raise NotKeptNow("storage is not available") from error


def _keep(store: ExpectationStore, expectation: Expectation) -> None:
    state = STATES[expectation.state]
    series = None if expectation.series is None else _series(expectation.series)
    if expectation.kind is ExpectationKind.STEP_SET:
        store.updated(ExpectationSource.PROCEDURE_STEP, expectation.sop_instance_uid, state, series)
        return
    created = expectation.kind is ExpectationKind.STEP_CREATED
    store.announced(
        Said(
            study_instance_uid=expectation.study_instance_uid,
            source=ExpectationSource.PROCEDURE_STEP if created else ExpectationSource.AVAILABILITY,
            state=state,
            reference_uid=expectation.sop_instance_uid,
            series=series or {},
        )
    )


def _series(series: Mapping[str, frozenset[str]]) -> Mapping[str, SeriesSaid]:
    return {
        uid: SeriesSaid(instances=len(named), sop_instance_uids=tuple(sorted(named)))
        for uid, named in series.items()
    }
