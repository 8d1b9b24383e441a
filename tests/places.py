"""Where things lie in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
CONFIG: Final = ROOT / "config"
README: Final = ROOT / "README.md"
REFERENCE_GENERATOR: Final = ROOT / "deploy" / "docs" / "configuration_reference.py"
