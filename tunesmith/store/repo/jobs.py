"""Fine-tuning jobs: what the API shows of them, and the ledger of who works on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesmith.store.db import LeaseTime
from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import job_metadata, jobs


@dataclass(frozen=True)
class JobRow:
    id: str
    project_id: str
    created_at: int
    status: str
    organization_id: str
    model: str
    """As requested; what the API echoes."""
    model_label: str
    """The base part of the new model's name: as requested, or the label of the model continued."""
    base: str
    """Name of the registered base."""
    training_file: str
    seed: int
    requested: dict[str, Any]
    """Hyperparameters as asked for: "auto" or numbers, and only those given."""
    hyperparameters: dict[str, Any]
    """As shown: "auto" until the files are validated, then numbers."""
    key_id: str | None = None
    """The key that asked for it; None where that was not noted."""
    method: str = "supervised"
    validation_file: str | None = None
    start_adapter: str | None = None
    """sha256 of the adapter to continue."""
    suffix: str | None = None
    metadata: dict[str, str] | None = None
    integrations: list[dict[str, Any]] | None = None
    finished_at: int | None = None
    estimated_finish: int | None = None
    trained_tokens: int | None = None
    fine_tuned_model: str | None = None
    result_file: str | None = None
    error: dict[str, Any] | None = None
    """{code, message, param} of a failed job."""
    fence: int = 0
    """Grows with every claim and launch; writes of an older one are refused."""
    launch_fence: int = 0
    """What carries a lower fence, in the job's directory, is left from an earlier round; 0 = no
    process was launched yet for the present one."""
    lease_owner: str | None = None
    lease_epoch: str | None = None
    lease_until: float | None = None
    control: str | None = None
    """What the user asked of the worker: "cancel" or "pause"."""
    attempts: int = 0
    """Crashes since the last progress."""
    crash_step: int = -1
    """The step reached at the latest crash; -1 = none yet."""
    events_offset: int = 0
    """How much of events.jsonl is in the events table, bytes."""
    last_step: int = 0
    total_steps: int | None = None

    @property
    def result_files(self) -> list[str]:
        return [] if self.result_file is None else [self.result_file]


_COLUMNS = columns_of(JobRow, jobs)


def insert(conn: sa.Connection, row: JobRow) -> None:
    conn.execute(sa.insert(jobs).values(**vars(row)))
    for key, value in (row.metadata or {}).items():
        conn.execute(sa.insert(job_metadata).values(job_id=row.id, key=key, value=value))


def get(conn: sa.Connection, project_id: str, job_id: str) -> JobRow | None:
    query = sa.select(*_COLUMNS).where(jobs.c.id == job_id, jobs.c.project_id == project_id)
    row = conn.execute(query).first()
    return None if row is None else build(JobRow, row)


def get_any(conn: sa.Connection, job_id: str) -> JobRow | None:
    """Of whichever project: for the worker and the command line."""
    row = conn.execute(sa.select(*_COLUMNS).where(jobs.c.id == job_id)).first()
    return None if row is None else build(JobRow, row)


def page(
    conn: sa.Connection,
    project_id: str,
    *,
    after: str | None = None,
    limit: int = 20,
    metadata: dict[str, str] | None = None,
    without_metadata: bool = False,
) -> Page[JobRow]:
    """Newest first. `metadata` keeps jobs that carry all its pairs."""
    own = jobs.c.project_id == project_id
    query = sa.select(*_COLUMNS).where(own)
    pairs = sa.exists().where(job_metadata.c.job_id == jobs.c.id)
    for key, value in (metadata or {}).items():
        query = query.where(pairs.where(job_metadata.c.key == key, job_metadata.c.value == value))
    if without_metadata:
        query = query.where(sa.not_(pairs))
    cursor = find_cursor(conn, jobs.c.seq, jobs.c.id, after, own)
    return fetch_page(conn, JobRow, query, jobs.c.seq, cursor=cursor, limit=limit)


def update(conn: sa.Connection, job_id: str, *, at_fence: int | None = None, **values: Any) -> bool:
    """Sets columns; with `at_fence` only while that is the current fence. False if not done."""
    query = sa.update(jobs).where(jobs.c.id == job_id)
    if at_fence is not None:
        query = query.where(jobs.c.fence == at_fence)
    return conn.execute(query.values(**values)).rowcount == 1


def claimable(conn: sa.Connection, statuses: tuple[str, ...], time: LeaseTime) -> bool:
    """Whether claim() would find something; a read, so that idle workers take no write lock."""
    return conn.execute(_free(statuses, time).limit(1)).first() is not None


def claim(
    conn: sa.Connection, statuses: tuple[str, ...], owner: str, time: LeaseTime, lease_s: float
) -> JobRow | None:
    """Gives the oldest free job in one of the states to the owner, with a higher fence.

    Free = without a lease, or with one that ran out. Running jobs, left by a dead worker, go first.
    """
    chosen = _free(statuses, time).order_by((jobs.c.status != "running"), jobs.c.seq).limit(1)
    query = (
        sa.update(jobs)
        .where(jobs.c.seq == chosen.scalar_subquery())
        .values(
            fence=jobs.c.fence + 1,
            lease_owner=owner,
            lease_epoch=time.epoch,
            lease_until=time.now_s + lease_s,
        )
        .returning(*_COLUMNS)
    )
    row = conn.execute(query).first()
    return None if row is None else build(JobRow, row)


def _free(statuses: tuple[str, ...], time: LeaseTime) -> sa.Select[Any]:
    expired = sa.or_(
        jobs.c.lease_owner.is_(None),
        jobs.c.lease_epoch != time.epoch,
        jobs.c.lease_until < time.now_s,
    )
    return sa.select(jobs.c.seq).where(jobs.c.status.in_(statuses), expired)


def leased(conn: sa.Connection) -> list[JobRow]:
    """Jobs that someone holds, or held until death."""
    query = sa.select(*_COLUMNS).where(jobs.c.lease_owner.is_not(None))
    return [build(JobRow, row) for row in conn.execute(query)]


def many(conn: sa.Connection, job_ids: list[str]) -> dict[str, JobRow]:
    """The jobs with these ids, by id."""
    query = sa.select(*_COLUMNS).where(jobs.c.id.in_(job_ids))
    return {row.id: build(JobRow, row) for row in conn.execute(query)}


def count_by_base(conn: sa.Connection, project_id: str, *, since: int) -> dict[str, int]:
    """Jobs that a project has created since a time."""
    query = sa.select(jobs.c.base, sa.func.count()).where(
        jobs.c.project_id == project_id, jobs.c.created_at > since
    )
    return {row[0]: row[1] for row in conn.execute(query.group_by(jobs.c.base))}


def count_by_status(conn: sa.Connection) -> dict[str, int]:
    query = sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status)
    return {row[0]: row[1] for row in conn.execute(query)}


def waiting_since(conn: sa.Connection) -> int | None:
    """When the job was made that has waited longest for a worker; None if none waits."""
    waiting = jobs.c.status.in_(("validating_files", "queued"))
    query = sa.select(sa.func.min(jobs.c.created_at)).where(waiting, jobs.c.lease_owner.is_(None))
    return conn.execute(query).scalar()


def trained_tokens(conn: sa.Connection) -> int:
    """Of all jobs that have ended."""
    return conn.execute(sa.select(sa.func.sum(jobs.c.trained_tokens))).scalar() or 0


def among(
    conn: sa.Connection, statuses: tuple[str, ...], *, project_id: str | None = None
) -> list[JobRow]:
    """The jobs in these states, of one project or of all, oldest first."""
    query = sa.select(*_COLUMNS).where(jobs.c.status.in_(statuses)).order_by(jobs.c.seq)
    if project_id is not None:
        query = query.where(jobs.c.project_id == project_id)
    return [build(JobRow, row) for row in conn.execute(query)]
