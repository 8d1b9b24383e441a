"""What a request may carry, checked once, and how a view comes by its context."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from node.admin.context import AdminContext
from node.admin.pages import Pages
from storage.records import NotFoundError, StudyRecord
from storage.states import DeliveryState, JobState, StudyState

PAGE_SIZE: Final = 50
LIST_LIMIT: Final = 200
UID_PATTERN: Final = r"^[0-9]+(\.[0-9]+)*$"  # PS3.5 9.1, tolerant of leading zeros
UID_LENGTH: Final = 64


def current_context(request: Request) -> AdminContext:
    """Return the context that the application was made with."""
    context = request.app.state.context
    if not isinstance(context, AdminContext):
        raise TypeError("the application was made without an AdminContext")
    return context


def current_pages(request: Request) -> Pages:
    """Return the renderer that the application was made with."""
    pages = request.app.state.pages
    if not isinstance(pages, Pages):
        raise TypeError("the application was made without Pages")
    return pages


def _absent_if_empty(value: object) -> object:
    return None if value == "" else value


Admin = Annotated[AdminContext, Depends(current_context)]
Renderer = Annotated[Pages, Depends(current_pages)]
StudyUid = Annotated[
    str, Path(pattern=UID_PATTERN, max_length=UID_LENGTH, description="Study Instance UID")
]
StudyUidQuery = Annotated[
    str | None,
    Query(
        alias="study", pattern=UID_PATTERN, max_length=UID_LENGTH, description="Study Instance UID"
    ),
]


def known_study(context: Admin, study_instance_uid: StudyUid) -> StudyRecord:
    """Return the study that the address names.

    Raises:
        HTTPException: 404, if no instance of it ever arrived.
    """
    try:
        return context.studies.get(study_instance_uid)
    except NotFoundError as error:
        message = f"No instance of study {study_instance_uid} has arrived at this node."
        raise HTTPException(HTTPStatus.NOT_FOUND, message) from error


def asked_study(context: Admin, study_instance_uid: StudyUidQuery = None) -> StudyRecord | None:
    """Return the study that the query names, or None if it names none.

    Raises:
        HTTPException: 404, if no instance of it ever arrived.
    """
    return known_study(context, study_instance_uid) if study_instance_uid is not None else None


KnownStudy = Annotated[StudyRecord, Depends(known_study)]
AskedStudy = Annotated[StudyRecord | None, Depends(asked_study)]
Limit = Annotated[int, Query(ge=1, le=1000)]
JobStateQuery = Annotated[JobState | None, Query(alias="state")]
DeliveryStateQuery = Annotated[DeliveryState | None, Query(alias="state")]
DestinationQuery = Annotated[str | None, Query(max_length=100)]
OptionalStudyState = Annotated[StudyState | None, BeforeValidator(_absent_if_empty)]


# what FastAPI asks for, in its own words
Responses: TypeAlias = dict[int | str, dict[str, Any]]


class StudyFilter(BaseModel):
    """Which studies to list, without anything that names a patient: it may stand in an address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: OptionalStudyState = None
    limit: int = Field(default=PAGE_SIZE, ge=1, le=1000)
    offset: int = Field(default=0, ge=0, le=10_000_000)


class StudySearch(StudyFilter):
    """Which studies to list, by words. Sent in a body: addresses end up in logs and histories."""

    text: str = Field(default="", max_length=200)


async def search_form(request: Request) -> StudySearch:
    """Read the search form.

    Raises:
        RequestValidationError: naming the field that is wrong.
    """
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(body, keep_blank_values=True, max_num_fields=10)
        return StudySearch.model_validate({name: values[-1] for name, values in fields.items()})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    except ValueError as error:
        problem = {"loc": ("body",), "msg": "too many fields", "type": "value_error"}
        raise RequestValidationError([problem]) from error


SearchForm = Annotated[StudySearch, Depends(search_form)]
