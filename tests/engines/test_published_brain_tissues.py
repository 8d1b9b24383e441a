"""Published nets that tell white from grey matter, on real T1 MR, against a plain pipeline.

Where ../shared is absent these are named as not run; see `shared_data`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.published import Find, imported, volume
from tests.engines.published_brains import check_brain
from tests.factories import instance_files


@pytest.mark.parametrize("answers", ["brain_meshnet_gwm", "brain_meshnet_gwm_light"])
def test_brains_are_those_of_the_readme(answers: str, shared: Find, tmp_path: Path) -> None:
    check_brain(answers, shared, tmp_path)


def test_a_head_of_two_millimetres_is_that_of_the_readme(shared: Find, tmp_path: Path) -> None:
    """The second of two acquisitions of that head."""
    model = shared("models/brain_meshnet_gwm/gwm_light_5ch.onnx")
    files = instance_files([shared("data/mr_enhanced_t1_dti/anat-T1w_acq-tfl_6.dcm")])
    outcome = imported(model, "brain_meshnet_gwm_light", tmp_path, files)
    assert volume(outcome, "white-matter") == pytest.approx(180, rel=0.04)
    assert volume(outcome, "grey-matter") == pytest.approx(406, rel=0.04)
