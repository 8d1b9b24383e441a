"""Where things lie in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
CONFIG: Final = ROOT / "config"
README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "deploy" / "docs"
REFERENCE_GENERATOR: Final = DOCS / "configuration_reference.py"
STATEMENT: Final = DOCS / "conformance.md"
STATEMENT_GENERATOR: Final = DOCS / "conformance_tables.py"
