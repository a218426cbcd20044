"""Trackers that the course of a job is passed on to (wandb, MLflow, TensorBoard), and how far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from tunesmith.store.db import LeaseTime
from tunesmith.store.repo.rows import build, columns_of
from tunesmith.store.tables import jobs, trackers

State = Literal["open", "done", "failed"]
# States of a job in which something is, or may be left, to be passed on.
FOLLOWED = ("running", "succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class TrackerRow:
    job_id: str
    number: int
    """From 0 within the job, those of its integrations first."""
    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    """As the job's `integrations` gave it."""
    state: State = "open"
    run_id: str | None = None
    """As the tracker calls the run; a later process goes on with it."""
    sent_seq: int = 0
    """The number of the last event that the tracker has."""
    num_failures: int = 0
    """In a row, without an event passed on in between."""
    due_at: float = 0.0


_COLUMNS = columns_of(TrackerRow, trackers)


def insert(conn: sa.Connection, row: TrackerRow) -> None:
    conn.execute(sa.insert(trackers).values(**vars(row)))


def is_due(conn: sa.Connection, time: LeaseTime, now: float) -> bool:
    """Whether claim() would find something."""
    return conn.execute(_free(time, now).limit(1)).first() is not None


def claim(
    conn: sa.Connection, owner: str, time: LeaseTime, now: float, lease_s: float
) -> TrackerRow | None:
    """Gives the owner one tracker that is due and in nobody's hands."""
    chosen = _free(time, now).order_by(trackers.c.seq).limit(1)
    query = (
        sa.update(trackers)
        .where(trackers.c.seq == chosen.scalar_subquery())
        .values(lease_owner=owner, lease_epoch=time.epoch, lease_until=time.now_s + lease_s)
        .returning(*_COLUMNS)
    )
    row = conn.execute(query).first()
    return None if row is None else build(TrackerRow, row)


def _free(time: LeaseTime, now: float) -> sa.Select[Any]:
    free = sa.or_(
        trackers.c.lease_owner.is_(None),
        trackers.c.lease_epoch != time.epoch,
        trackers.c.lease_until < time.now_s,
    )
    # A job may wait in the queue for days; nobody follows it then.
    moving = sa.select(jobs.c.id).where(jobs.c.status.in_(FOLLOWED))
    return sa.select(trackers.c.seq).where(
        trackers.c.state == "open",
        trackers.c.due_at <= now,
        trackers.c.job_id.in_(moving),
        free,
    )


def update(conn: sa.Connection, owner: str, row: TrackerRow, **values: Any) -> bool:
    """Sets columns while the owner holds it; False if it does no more."""
    query = sa.update(trackers).where(
        trackers.c.job_id == row.job_id,
        trackers.c.number == row.number,
        trackers.c.lease_owner == owner,
    )
    return conn.execute(query.values(**values)).rowcount == 1


def holders(conn: sa.Connection) -> set[tuple[str, str]]:
    """(owner, epoch) of all leases."""
    query = sa.select(trackers.c.lease_owner, trackers.c.lease_epoch).where(
        trackers.c.lease_owner.is_not(None)
    )
    return {(row[0], row[1]) for row in conn.execute(query.distinct())}


def release(conn: sa.Connection, owner: str) -> int:
    """Ends all leases of one owner; how many."""
    query = sa.update(trackers).where(trackers.c.lease_owner == owner)
    return conn.execute(query.values(lease_owner=None)).rowcount


def of_job(conn: sa.Connection, job_id: str) -> list[TrackerRow]:
    query = sa.select(*_COLUMNS).where(trackers.c.job_id == job_id).order_by(trackers.c.number)
    return [build(TrackerRow, row) for row in conn.execute(query)]


def num_failures(conn: sa.Connection, row: TrackerRow) -> int:
    """As it is now."""
    query = sa.select(trackers.c.num_failures).where(
        trackers.c.job_id == row.job_id, trackers.c.number == row.number
    )
    return int(conn.execute(query).scalar_one())


def num_open(conn: sa.Connection) -> int:
    query = sa.select(sa.func.count()).where(trackers.c.state == "open")
    return int(conn.execute(query).scalar_one())
