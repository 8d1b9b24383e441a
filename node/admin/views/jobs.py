"""Jobs: one engine on one study revision, with errors and what to do about them."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from node.admin.parameters import (
    LIST_LIMIT,
    Admin,
    AskedStudy,
    JobStateQuery,
    Limit,
    Renderer,
)
from node.admin.replies import Job, JobList
from node.admin.wording import RESULTS_NOTICE
from storage.states import JobState


def page(context: Admin, pages: Renderer, state: JobStateQuery = None) -> HTMLResponse:
    """Show the jobs, all or of one state."""
    counts = context.jobs.counts()
    return pages.render(
        "jobs.html",
        jobs=context.jobs.list(state=state, limit=LIST_LIMIT),
        limit=LIST_LIMIT,
        state=state,
        counts={item: counts.get(item, 0) for item in JobState},
        total=sum(counts.values()),
    )


def answer(
    context: Admin, state: JobStateQuery = None, study: AskedStudy = None, limit: Limit = 100
) -> JobList:
    """Answer the jobs, all or of one state or study."""
    study_id = study.id if study is not None else None
    found = context.jobs.list(study_id=study_id, state=state, limit=limit)
    return JobList(jobs=tuple(Job.of(job) for job in found), notice=RESULTS_NOTICE)


def routes() -> APIRouter:
    """Return the routes of this subject."""
    router = APIRouter()
    router.add_api_route("/jobs", page, include_in_schema=False, response_class=HTMLResponse)
    router.add_api_route("/api/jobs", answer, response_model=JobList)
    return router
