"""Studies: the list, the search, one study with everything made from it, and its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from node.admin.context import AdminContext
from node.admin.parameters import (
    Admin,
    KnownStudy,
    Renderer,
    Responses,
    SearchForm,
    StudyFilter,
    StudySearch,
)
from node.admin.replies import (
    Deletion,
    Delivery,
    DeliveryProgress,
    Hold,
    Instance,
    InstanceList,
    Job,
    Problem,
    Recall,
    Result,
    Series,
    Study,
    StudyDetail,
    StudyList,
    Timeline,
    TimelineEvent,
)
from node.admin.wording import RESULTS_NOTICE
from storage.records import EventRecord, StudyRecord
from storage.states import InstanceState, StudyState

SHOWN_INSTANCES: Final = 200  # of each series, on a page
EVERYTHING: Final = 1000  # jobs or deliveries of one study; far above what one study makes


def page_of(context: AdminContext, wanted: StudySearch) -> tuple[Sequence[StudyRecord], bool]:
    """Return one stretch of the list, and whether others follow."""
    found = context.studies.list(
        limit=wanted.limit + 1, offset=wanted.offset, state=wanted.state, text=wanted.text
    )
    return found[: wanted.limit], len(found) > wanted.limit


def browse_page(
    context: Admin, pages: Renderer, wanted: Annotated[StudyFilter, Query()]
) -> HTMLResponse:
    """Show the studies, newest first."""
    return _list_page(context, pages, StudySearch(**wanted.model_dump()))


def search_page(context: Admin, pages: Renderer, wanted: SearchForm) -> HTMLResponse:
    """Show the studies that a search finds."""
    return _list_page(context, pages, wanted)


def study_page(context: Admin, pages: Renderer, study: KnownStudy) -> HTMLResponse:
    """Show one study: what it is, what became of it, and why."""
    deliveries = context.deliveries.list(study_id=study.id, limit=EVERYTHING)
    timeline = context.events.timeline(study.id)
    instances = context.studies.instances(study.id, include_conflicts=True)
    return pages.render(
        "study.html",
        study=study,
        series=context.studies.series(study.id),
        instances=instances,
        shown_instances=SHOWN_INSTANCES,
        conflicts=[item for item in instances if item.state is InstanceState.CONFLICT],
        jobs=context.jobs.list(study_id=study.id, limit=EVERYTHING),
        results=context.jobs.results(study_id=study.id),
        deliveries=deliveries,
        progress=DeliveryProgress.of(deliveries),
        timeline=timeline,
        attempts=_attempts(timeline),
        holds=context.holds.list(study_id=study.id),
        recalls=context.recalls.list(study_id=study.id),
        withdrawals=context.withdrawals.list(study_id=study.id),
        deletions=context.holds.deletions(study_id=study.id),
        gone=context.studies.gone(study.id),
    )


def browse(context: Admin, wanted: Annotated[StudyFilter, Query()]) -> StudyList:
    """Answer the studies, newest first."""
    return search(context, StudySearch(**wanted.model_dump()))


def search(context: Admin, wanted: StudySearch) -> StudyList:
    """Answer the studies that a search finds."""
    found, more = page_of(context, wanted)
    return StudyList(
        studies=tuple(Study.of(study) for study in found), offset=wanted.offset, more=more
    )


def detail(context: Admin, study: KnownStudy) -> StudyDetail:
    """Answer one study with everything that was made from it."""
    deliveries = context.deliveries.list(study_id=study.id, limit=EVERYTHING)
    return StudyDetail(
        study=Study.of(study),
        series=tuple(Series.model_validate(item) for item in context.studies.series(study.id)),
        jobs=tuple(Job.of(item) for item in context.jobs.list(study_id=study.id, limit=EVERYTHING)),
        results=tuple(
            Result.model_validate(item) for item in context.jobs.results(study_id=study.id)
        ),
        deliveries=tuple(Delivery.of(item) for item in deliveries),
        progress=DeliveryProgress.of(deliveries),
        notice=RESULTS_NOTICE,
        holds=tuple(Hold.model_validate(item) for item in context.holds.list(study_id=study.id)),
        recalls=tuple(Recall.of(item) for item in context.recalls.list(study_id=study.id)),
        deletions=tuple(
            Deletion.model_validate(item) for item in context.holds.deletions(study_id=study.id)
        ),
    )


def instances(context: Admin, study: KnownStudy) -> InstanceList:
    """Answer every instance that is held for a study, conflicts included."""
    found = context.studies.instances(study.id, include_conflicts=True)
    return InstanceList(instances=tuple(Instance.model_validate(item) for item in found))


def timeline(context: Admin, study: KnownStudy) -> Timeline:
    """Answer what happened to a study, oldest first."""
    return Timeline(
        study_instance_uid=study.study_instance_uid,
        events=tuple(
            TimelineEvent.model_validate(event) for event in context.events.timeline(study.id)
        ),
    )


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    pages = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
    missing: Responses = {int(HTTPStatus.NOT_FOUND): {"model": Problem}}
    one = "/api/studies/{study_instance_uid}"
    pages.add_api_route("/studies", browse_page)
    pages.add_api_route("/studies", search_page, methods=["POST"])
    pages.add_api_route("/studies/{study_instance_uid}", study_page)
    router.include_router(pages)
    router.add_api_route("/api/studies", browse, response_model=StudyList)
    router.add_api_route("/api/studies/search", search, methods=["POST"], response_model=StudyList)
    router.add_api_route(one, detail, response_model=StudyDetail, responses=missing)
    router.add_api_route(
        f"{one}/instances", instances, response_model=InstanceList, responses=missing
    )
    router.add_api_route(f"{one}/timeline", timeline, response_model=Timeline, responses=missing)
    return router


def _list_page(context: AdminContext, pages: Renderer, wanted: StudySearch) -> HTMLResponse:
    found, more = page_of(context, wanted)
    counts = context.studies.counts()
    return pages.render(
        "studies.html",
        studies=found,
        more=more,
        wanted=wanted,
        counts={state: counts.get(state, 0) for state in StudyState},
        total=sum(counts.values()),
    )


def _attempts(timeline: Sequence[EventRecord]) -> dict[int, list[EventRecord]]:
    """Group the events of a timeline by the delivery they are about: its attempts."""
    found: dict[int, list[EventRecord]] = {}
    for event in timeline:
        if event.delivery_id is not None:
            found.setdefault(event.delivery_id, []).append(event)
    return found
