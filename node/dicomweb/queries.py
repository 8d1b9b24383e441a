"""QIDO-RS: search for studies, series and instances (PS3.18 10.6)."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from node.dicomweb.accept import MediaRange
from node.dicomweb.parameters import (
    UID_PATTERN,
    Accepted,
    Configured,
    Holdings,
    OwnAddress,
    Reading,
)
from node.dicomweb.replies import DICOM_JSON, array
from node.dicomweb.search import (
    INSTANCE,
    SERIES,
    STUDY,
    Found,
    Search,
    Searcher,
    SearchError,
    read_search,
)

JSON: Final = (DICOM_JSON, "application/json")
IN_ADDRESS: Final = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
MORE: Final = '299 wetread "There are additional results that can be requested"'
LITERAL: Final = (
    '299 wetread "The fuzzymatching parameter is not supported. '
    'Only literal matching has been performed."'
)
BY_LEVEL: Final[dict[int, Callable[[Searcher, Search], Found]]] = {
    STUDY: Searcher.studies,
    SERIES: Searcher.series,
    INSTANCE: Searcher.instances,
}

log = structlog.get_logger()


def hold_json(accepted: list[MediaRange]) -> None:
    """Refuse who takes no JSON: there is no XML here.

    Raises:
        HTTPException: 406.
    """
    if not any(entry.takes(kind) for entry in accepted for kind in JSON if not entry.multipart):
        raise HTTPException(HTTPStatus.NOT_ACCEPTABLE, f"There is {DICOM_JSON} only.")


def add_routes(router: APIRouter) -> None:
    """Add the routes of this subject."""
    for level, paths in (
        (STUDY, ("/studies",)),
        (SERIES, ("/series", "/studies/{study}/series")),
        (
            INSTANCE,
            (
                "/instances",
                "/studies/{study}/instances",
                "/studies/{study}/series/{series}/instances",
            ),
        ),
    ):
        for path in paths:
            router.add_api_route(path, _searching(level), response_model=None)


def _searching(level: int) -> Callable[..., Response]:
    def search(  # noqa: PLR0917 - what FastAPI hands over
        request: Request,
        holdings: Holdings,
        reader: Reading,
        settings: Configured,
        address: OwnAddress,
        accepted: Accepted,
    ) -> Response:
        """Search at one level."""
        hold_json(accepted)
        wanted = read_search(_items(request), level, settings.max_results)
        found = BY_LEVEL[level](Searcher(holdings, reader, address), wanted)
        log.info(
            "dicomweb.searched",
            user=request.state.user,
            what=("studies", "series", "instances")[level],
            matches=len(found.items),
        )
        warnings = [MORE] if found.more else []
        warnings += [LITERAL] if wanted.fuzzy else []
        return array(found.items, {"Warning": ", ".join(warnings)} if warnings else None)

    return search


def _items(request: Request) -> list[tuple[str, str]]:
    """Return the keys of a search; those in its address come last, and count."""
    items = list(request.query_params.multi_items())
    for name, uid in request.path_params.items():
        if not re.fullmatch(UID_PATTERN, str(uid)):
            raise SearchError("the address holds something that is no UID")
        items.append((IN_ADDRESS[name], str(uid)))
    return items
