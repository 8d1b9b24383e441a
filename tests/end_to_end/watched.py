"""A node whose readiness can be asked for, with one rule: series that say so are read."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Final

from node.stores import Stores
from storage.states import JobState, StudyState
from tests.end_to_end.processes import OPEN_DELIVERIES, NodeProcess, free_port

TO_BE_READ: Final = "To be read"
READING_RULE: Final = f"""
[[rules]]
name = "to-be-read"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["ct-body-composition"]
destinations = ["pacs"]
conditions = {{field = "SeriesDescription", op = "equals", value = "{TO_BE_READ}"}}
"""
UNFINISHED_STUDIES: Final = (StudyState.RECEIVING, StudyState.COMPLETE)
UNFINISHED_JOBS: Final = (JobState.QUEUED, JobState.RUNNING)


@dataclass(kw_only=True)
class WatchedNode(NodeProcess):
    """`wetread run` with its admin page on."""

    rules: str = READING_RULE
    admin_port: int = field(default_factory=free_port)

    def configuration(self) -> str:
        """Return the TOML text, with the admin page."""
        switched_on = f"enabled = true\nport = {self.admin_port}"
        return super().configuration().replace("enabled = false", switched_on)

    def ready(self) -> bool:
        """Say whether the node says of itself that every component is ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz") as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def unfinished(stores: Stores) -> int:
    """Return how many studies, jobs and deliveries are on their way."""
    studies, jobs = stores.studies.counts(), stores.jobs.counts()
    deliveries = stores.deliveries.counts()
    return (
        sum(studies.get(state, 0) for state in UNFINISHED_STUDIES)
        + sum(jobs.get(state, 0) for state in UNFINISHED_JOBS)
        + sum(deliveries.get(state, 0) for state in OPEN_DELIVERIES)
    )
