"""README tells the truth: its links lead somewhere, its commands and targets are there."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from node.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_link_leads_to_a_file_or_folder() -> None:
    links = set(re.findall(r"\]\(([^)#:]+)\)", README))
    assert len(links) > 15
    assert [link for link in sorted(links) if not (ROOT / link).exists()] == []


def test_every_command_is_told_and_every_told_command_exists() -> None:
    commands = set(getattr(get_command(app), "commands", {}))
    told = set(
        re.findall(r"`(?:wetread )?([a-z][a-z-]+)(?= |`|\[)", README.split("## Commands")[1])
    )
    assert commands - told == set()
    assert {"run", "demo", "pacs", "worker", "replay", "timeline"} <= commands


def test_every_target_that_is_told_is_in_the_makefile() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    told = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= told
    assert told <= targets
