from __future__ import annotations

from dataclasses import replace

import pytest

from storage.records import EngineRecord, NotFoundError
from storage.states import EngineState
from tests.storage.holding import Holding, digest

ENGINE = EngineRecord(
    name="liver",
    version="1.0",
    digest=digest("liver 1.0"),
    task="segmentation",
    runtime="onnxruntime",
    intended_use="Research only",
    state=EngineState.REGISTERED,
    golden={"dice": 0.97},
)


def test_an_engine_is_kept_and_brought_up_to_date(held: Holding) -> None:
    held.engines.register(ENGINE)
    held.engines.register(ENGINE)
    newer = replace(ENGINE, version="1.1", digest=digest("liver 1.1"))
    held.engines.register(newer)
    held.engines.register(replace(ENGINE, name="body"))
    assert held.engines.get("liver") == newer
    assert [engine.name for engine in held.engines.list()] == ["body", "liver"]
    assert [event.action for event in held.events.recent()] == ["engine.registered"] * 3


def test_an_engines_state_is_told(held: Holding) -> None:
    held.engines.register(ENGINE)
    held.engines.set_state("liver", EngineState.UNAVAILABLE, "no GPU")
    engine = held.engines.get("liver")
    assert (engine.state, engine.reason) == (EngineState.UNAVAILABLE, "no GPU")
    assert held.events.recent(1)[0].action == "engine.unavailable"


def test_an_engine_that_was_never_registered_is_not_found(held: Holding) -> None:
    with pytest.raises(NotFoundError):
        held.engines.get("liver")
    with pytest.raises(NotFoundError):
        held.engines.set_state("liver", EngineState.ACTIVE)
