"""Moves jobs through their states in the database: every status change is written here."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from tunesmith.errors import TunesmithError
from tunesmith.jobs import outbox, states
from tunesmith.jobs.states import Event, State, Status
from tunesmith.store.repo import jobs
from tunesmith.store.repo.jobs import JobRow


class LeaseLost(TunesmithError):
    """Another worker has the job: drop it, and leave its process and files alone."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The lease of {job_id} was lost.")


def state_of(job: JobRow) -> State:
    return State(
        status=Status(job.status),
        held=job.lease_owner is not None,
        control=cast("states.Control | None", job.control),
        attempts=job.attempts,
        crash_step=job.crash_step,
    )


def read_held(conn: sa.Connection, job_id: str, fence: int) -> JobRow:
    """The job as it is now. Raises LeaseLost unless the fence is still the current one."""
    job = jobs.get_any(conn, job_id)
    if job is None or job.fence != fence:
        raise LeaseLost(job_id)
    return job


def move(
    conn: sa.Connection,
    job: JobRow,
    event: Event,
    now: int,
    *,
    max_attempts: int = 1,
    **columns: Any,
) -> State:
    """Applies an event to a job just read in this write transaction; sets more columns with it.

    Word of a job's end is written here, so that no end can be without it.

    Raises Refused, and LeaseLost where the row has changed hands since it was read.
    """
    after = states.apply(state_of(job), event, last_step=job.last_step, max_attempts=max_attempts)
    values: dict[str, Any] = {
        "status": str(after.status),
        "control": after.control,
        "attempts": after.attempts,
        "crash_step": after.crash_step,
    }
    if not after.held:
        values |= {"lease_owner": None, "lease_epoch": None, "lease_until": None}
    if after.status is not Status.RUNNING:
        values["estimated_finish"] = None
    if after.status in states.TERMINAL:
        values["finished_at"] = max(now, job.created_at)
    if not jobs.update(conn, job.id, at_fence=job.fence, **values, **columns):
        raise LeaseLost(job.id)
    if after.status in states.TERMINAL:
        outbox.job_ended(conn, job, after.status, now)
    return after
