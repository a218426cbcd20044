"""What each job is expected to cost, and what it has cost so far."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as upsert

from tunesmith.store.repo.rows import build, columns_of
from tunesmith.store.tables import job_costs, jobs


@dataclass(frozen=True)
class JobCost:
    job_id: str
    estimated_tokens: int | None = None
    """All epochs of the training file; None until it has been read."""
    estimated_nanos: int | None = None
    trained_tokens: int = 0
    machine_s: int = 0
    """That a trainer worked on it."""
    training_nanos: int = 0
    machine_nanos: int = 0

    @property
    def nanos(self) -> int:
        return self.training_nanos + self.machine_nanos


def get(conn: sa.Connection, job_id: str) -> JobCost:
    """Zeros for a job of which nothing is known yet."""
    query = sa.select(*columns_of(JobCost, job_costs)).where(job_costs.c.job_id == job_id)
    row = conn.execute(query).first()
    return JobCost(job_id) if row is None else build(JobCost, row)


def put(conn: sa.Connection, row: JobCost) -> None:
    statement = upsert(job_costs).values(**vars(row))
    values = {name: value for name, value in vars(row).items() if name != "job_id"}
    conn.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=values))


def reserved(conn: sa.Connection) -> dict[str, int]:
    """Nano-dollars that unfinished jobs are still expected to cost, by project and by key."""
    query = (
        sa.select(jobs.c.project_id, jobs.c.key_id, job_costs)
        .join(jobs, jobs.c.id == job_costs.c.job_id)
        .where(jobs.c.finished_at.is_(None), job_costs.c.estimated_nanos.is_not(None))
    )
    found: dict[str, int] = {}
    for row in conn.execute(query):
        left = max(0, row.estimated_nanos - row.training_nanos - row.machine_nanos)
        for owner in filter(None, (row.project_id, row.key_id)):
            found[owner] = found.get(owner, 0) + left
    return found
