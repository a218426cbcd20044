"""/v1/fine_tuning/jobs: jobs, their events, their checkpoints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request

from tunesmith.api import estimate
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import After, Limit, Svc
from tunesmith.jobs import commands
from tunesmith.jobs.request import NewJob
from tunesmith.store.repo import checkpoints, events
from tunesmith.store.repo import jobs as repo
from tunesmith.store.repo.checkpoints import CheckpointRow
from tunesmith.store.repo.events import EventRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.wire.fine_tuning import Checkpoint, CreateJob, Event, Job
from tunesmith.wire.lists import Page

router = APIRouter(prefix="/v1/fine_tuning/jobs", route_class=JsonRoute)


def shape(row: JobRow) -> Job:
    method = {row.method: {"hyperparameters": row.hyperparameters}}
    return Job.model_validate(
        {
            **{name: getattr(row, name) for name in Job.model_fields if hasattr(row, name)},
            # The published service shows them here for supervised jobs only.
            "hyperparameters": row.hyperparameters if row.method == "supervised" else None,
            "method": {"type": row.method, **method},
            "user_provided_suffix": row.suffix,
            "integrations": row.integrations or [],
        }
    )


def shape_event(row: EventRow) -> Event:
    return Event(
        id=row.id,
        created_at=row.created_at,
        level=row.level,
        message=row.message,
        type=row.type,
        data=row.data,
    )


def shape_checkpoint(row: CheckpointRow) -> Checkpoint:
    return Checkpoint(
        id=row.id,
        created_at=row.created_at,
        fine_tuned_model_checkpoint=row.model_name,
        fine_tuning_job_id=row.job_id,
        metrics=row.metrics,
        step_number=row.step,
    )


@router.post("")
def create_job(
    body: CreateJob,
    svc: Svc,
    caller: CallerDep,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Job:
    """Queues a job; it is durable when this returns. Faults of the data show on the job later."""
    request = NewJob(**{**vars(body), "hyperparameters": body.hyperparameters or {}})
    row = commands.create_job(
        svc.db,
        svc.clock,
        svc.rng,
        svc.settings,
        caller,
        request,
        idempotency_key,
        estimate.tokens_of_budget(svc, caller, request),
    )
    return shape(row)


@router.get("")
def list_jobs(
    request: Request, svc: Svc, caller: CallerDep, after: After = None, limit: Limit = 20
) -> Page[Job]:
    """Newest first; `metadata[key]=value` filters, `metadata=null` asks for jobs without any."""
    query = request.query_params
    metadata = {
        name[len("metadata[") : -1]: value
        for name, value in query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    without = query.get("metadata") == "null"
    with svc.db.read() as conn:
        page = repo.page(
            conn,
            caller.project,
            after=after,
            limit=limit,
            metadata=metadata,
            without_metadata=without,
        )
    return Page.of([shape(row) for row in page.rows], page.has_more)


@router.get("/{job_id}")
def retrieve_job(job_id: str, svc: Svc, caller: CallerDep) -> Job:
    with svc.db.read() as conn:
        return shape(commands.get_job(conn, caller.project, job_id))


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, svc: Svc, caller: CallerDep) -> Job:
    return shape(commands.cancel_job(svc.db, svc.clock, caller, job_id))


@router.post("/{job_id}/pause")
def pause_job(job_id: str, svc: Svc, caller: CallerDep) -> Job:
    return shape(commands.pause_job(svc.db, svc.clock, caller, job_id))


@router.post("/{job_id}/resume")
def resume_job(job_id: str, svc: Svc, caller: CallerDep) -> Job:
    return shape(commands.resume_job(svc.db, svc.clock, caller, job_id))


@router.get("/{job_id}/events")
def list_events(
    job_id: str, svc: Svc, caller: CallerDep, after: After = None, limit: Limit = 20
) -> Page[Event]:
    """Newest first; pages stay disjoint while new events arrive."""
    with svc.db.read() as conn:
        commands.get_job(conn, caller.project, job_id)
        page = events.page(conn, job_id, after=after, limit=limit)
    return Page.of([shape_event(row) for row in page.rows], page.has_more)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, svc: Svc, caller: CallerDep, after: After = None, limit: Limit = 10
) -> Page[Checkpoint]:
    """Latest step first; filled when the job ends, the final model among them."""
    with svc.db.read() as conn:
        commands.get_job(conn, caller.project, job_id)
        page = checkpoints.page(conn, job_id, after=after, limit=limit)
    return Page.of([shape_checkpoint(row) for row in page.rows], page.has_more)
