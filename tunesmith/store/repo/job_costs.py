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
    """Of these tokens."""
    expected_machine_nanos: int = 0
    """Of the machine time of all rounds, as far as it can be foreseen."""
    trained_tokens: int = 0
    machine_s: int = 0
    """That a trainer worked on it."""
    training_nanos: int = 0
    machine_nanos: int = 0

    @property
    def nanos(self) -> int:
        return self.training_nanos + self.machine_nanos

    @property
    def expected_nanos(self) -> int:
        return (self.estimated_nanos or 0) + self.expected_machine_nanos


def get(conn: sa.Connection, job_id: str) -> JobCost:
    """Zeros for a job of which nothing is known yet."""
    query = sa.select(*columns_of(JobCost, job_costs)).where(job_costs.c.job_id == job_id)
    row = conn.execute(query).first()
    return JobCost(job_id) if row is None else build(JobCost, row)


def put(conn: sa.Connection, row: JobCost) -> None:
    statement = upsert(job_costs).values(**vars(row))
    values = {name: value for name, value in vars(row).items() if name != "job_id"}
    conn.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=values))


def pace(conn: sa.Connection, base: str) -> float | None:
    """Seconds of machine time for each token, of the newest job on a base that has succeeded."""
    query = (
        sa.select(job_costs.c.machine_s, job_costs.c.trained_tokens)
        .join(jobs, jobs.c.id == job_costs.c.job_id)
        .where(jobs.c.base == base, jobs.c.status == "succeeded", job_costs.c.trained_tokens > 0)
        .order_by(jobs.c.seq.desc())
        .limit(1)
    )
    row = conn.execute(query).first()
    return None if row is None else row.machine_s / row.trained_tokens


def reserved(conn: sa.Connection, *, but: str = "") -> dict[str, int]:
    """Nano-dollars that unfinished jobs, `but` for one, are still expected to cost, by project and
    by key."""
    query = (
        sa.select(jobs.c.project_id, jobs.c.key_id, job_costs)
        .join(jobs, jobs.c.id == job_costs.c.job_id)
        .where(jobs.c.finished_at.is_(None), jobs.c.id != but)
    )
    found: dict[str, int] = {}
    for row in conn.execute(query):
        left = max(0, (row.estimated_nanos or 0) - row.training_nanos)
        left += max(0, row.expected_machine_nanos - row.machine_nanos)
        for owner in filter(None, (row.project_id, row.key_id)):
            found[owner] = found.get(owner, 0) + left
    return found
