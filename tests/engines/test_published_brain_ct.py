"""A published net that outlines the brain, on a real CT: see end_to_end for it on real MR.

Where ../shared is absent these are named as not run; see `shared_data`.
"""

from __future__ import annotations

from pathlib import Path

from engines.base import open_engine
from engines.findings import Refusal
from engines.shipped_answers import import_shipped
from tests.engines.published import ANSWERS, Find, files_in


def test_a_tilted_head_ct_is_refused_though_the_readme_has_a_figure_for_it(
    shared: Find, tmp_path: Path
) -> None:
    model = shared("models/brain_mindgrab/mindgrab.onnx")
    answers = ANSWERS / "brain_mindgrab_ct" / "engine.toml"
    with open_engine(import_shipped(answers, model, tmp_path / "package")) as engine:
        outcome = engine.run(files_in(shared("data/ct_head_gantry_tilt/ge")))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "GANTRY_TILT"
