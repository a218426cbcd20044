"""/v1/tunesmith/jobs/{job_id}: how far a job is, and the figures of all its steps in one answer."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import APIRouter

from tunesmith.api import fine_tuning
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Svc
from tunesmith.jobs import commands
from tunesmith.jobs.states import WAITING, Status
from tunesmith.store.repo import events, jobs
from tunesmith.store.repo.jobs import JobRow
from tunesmith.wire.live import JobMetrics, JobNow

router = APIRouter(prefix="/v1/tunesmith/jobs", route_class=JsonRoute)


def shape(row: JobRow, num_ahead: int | None) -> JobNow:
    return JobNow(
        id=row.id,
        job=fine_tuning.shape(row),
        base=row.base,
        requested=row.requested,
        control=row.control,
        step=row.last_step,
        total_steps=row.total_steps,
        num_ahead=num_ahead,
    )


def queue(conn: sa.Connection) -> dict[str, int]:
    """How many jobs will be trained before each of those that wait, by id."""
    num_running = len(jobs.among(conn, (Status.RUNNING.value,)))
    return {row.id: num_running + place for place, row in enumerate(jobs.among(conn, WAITING))}


@router.get("/{job_id}")
def show_job(job_id: str, svc: Svc, caller: CallerDep) -> JobNow:
    with svc.db.read() as conn:
        row = commands.get_job(conn, caller.project, job_id)
        return shape(row, queue(conn).get(job_id))


@router.get("/{job_id}/metrics")
def show_metrics(job_id: str, svc: Svc, caller: CallerDep) -> JobMetrics:
    """By step: what a trainer that was killed did again is the same step, told once."""
    with svc.db.read() as conn:
        commands.get_job(conn, caller.project, job_id)
        found = events.metrics(conn, job_id)
    names = dict.fromkeys(
        name for _, data in found for name in data if name not in ("step", "total_steps")
    )
    return JobMetrics(
        fine_tuning_job_id=job_id,
        steps=[data["step"] for _, data in found],
        created_at=[created_at for created_at, _ in found],
        figures={name: [data.get(name) for _, data in found] for name in names},
    )
