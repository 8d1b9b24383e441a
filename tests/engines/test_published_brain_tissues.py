"""The lightest published net that tells white from grey matter, on real T1 MR, against a plain way.

Where ../shared is absent it is named as not run; see `shared_data`. The larger nets of the head are
held in `tests/end_to_end/test_published_brains.py`, through a node.
"""

from __future__ import annotations

from pathlib import Path

from tests.engines.published import Find
from tests.engines.published_brains import check_brain


def test_white_and_grey_matter_are_those_of_the_readme(shared: Find, tmp_path: Path) -> None:
    check_brain("brain_meshnet_gwm_light", shared, tmp_path)
