"""Published nets that tell white from grey matter, on real T1 MR, against a plain pipeline.

Where ../shared is absent these are named as not run; see `shared_data`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.published import Find
from tests.engines.published_brains import check_brain


@pytest.mark.parametrize("answers", ["brain_meshnet_gwm", "brain_meshnet_gwm_light"])
def test_brains_are_those_of_the_readme(answers: str, shared: Find, tmp_path: Path) -> None:
    check_brain(answers, shared, tmp_path)
