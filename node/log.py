"""Sets structlog up once, at start: one line an event, ids in fields."""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal

import structlog

SILENCED: Final = ("pydicom", "pynetdicom", "highdicom", "apscheduler")
"""The first three quote values of data sets, which may name a patient; of the sweeps,
`node.scheduler` tells what matters."""


def configure_logging(*, level: str, style: Literal["console", "json"], process: str = "") -> None:
    """Send events to standard error, as text for people or JSON lines for a collector.

    `process` names the one that they come from, where a node has several.
    """
    logging.captureWarnings(True)  # a library's warning may quote a data set
    logging.getLogger("py.warnings").setLevel(logging.CRITICAL + 1)
    for library in SILENCED:
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *([_naming(process)] if process else []),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _naming(process: str) -> structlog.types.Processor:
    def name(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event.setdefault("process", process)
        return event

    return name
