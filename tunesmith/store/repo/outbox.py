"""What is to be told to the outside: a row for each event and receiver, written with the event.

A row waits until it is delivered or dead (given up); either stays as a log and can be sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from tunesmith.store.db import LeaseTime
from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import outbox, outbox_attempts

Channel = Literal["webhook", "email"]
State = Literal["waiting", "delivered", "dead"]


@dataclass(frozen=True)
class DeliveryRow:
    id: str
    project_id: str
    event_id: str
    event_type: str
    job_id: str
    channel: Channel
    target: str
    """Of a webhook the endpoint's id, of an e-mail the address."""
    created_at: int
    since: int
    """When it was asked for, by the event or by hand; the time until it is given up counts on."""
    due_at: float
    """Not before this time is it tried (again)."""
    state: State = "waiting"
    num_attempts: int = 0
    finished_at: int | None = None


@dataclass(frozen=True)
class AttemptRow:
    delivery_id: str
    number: int
    at: int
    duration_ms: int
    status_code: int | None
    error: str | None
    """None of a success."""


@dataclass(frozen=True)
class Backlog:
    num_waiting: int
    oldest_at: int | None
    num_dead: int


_COLUMNS = columns_of(DeliveryRow, outbox)


def insert(conn: sa.Connection, row: DeliveryRow) -> None:
    conn.execute(sa.insert(outbox).values(**vars(row)))


def is_due(conn: sa.Connection, time: LeaseTime, now: float) -> bool:
    """Whether claim() would find something; a read, so that an idle worker takes no write lock."""
    return conn.execute(_free(time, now).limit(1)).first() is not None


def claim(
    conn: sa.Connection, owner: str, time: LeaseTime, now: float, *, lease_s: float, limit: int
) -> list[DeliveryRow]:
    """Gives the owner up to `limit` deliveries that are due and in nobody's hands."""
    chosen = _free(time, now).order_by(outbox.c.due_at, outbox.c.seq).limit(limit)
    query = (
        sa.update(outbox)
        .where(outbox.c.seq.in_(chosen.scalar_subquery()))
        .values(lease_owner=owner, lease_epoch=time.epoch, lease_until=time.now_s + lease_s)
        .returning(*_COLUMNS)
    )
    return [build(DeliveryRow, row) for row in conn.execute(query)]


def _free(time: LeaseTime, now: float) -> sa.Select[Any]:
    free = sa.or_(
        outbox.c.lease_owner.is_(None),
        outbox.c.lease_epoch != time.epoch,
        outbox.c.lease_until < time.now_s,
    )
    return sa.select(outbox.c.seq).where(outbox.c.state == "waiting", outbox.c.due_at <= now, free)


def settle(
    conn: sa.Connection,
    owner: str,
    attempt: AttemptRow,
    *,
    state: State,
    due_at: float,
    finished_at: int | None,
) -> bool:
    """Notes an attempt and what follows from it, and lets go; False if it has another owner now."""
    query = (
        sa.update(outbox)
        .where(outbox.c.id == attempt.delivery_id, outbox.c.lease_owner == owner)
        .values(
            state=state,
            due_at=due_at,
            finished_at=finished_at,
            num_attempts=attempt.number,
            lease_owner=None,
        )
    )
    if conn.execute(query).rowcount == 0:
        return False
    conn.execute(sa.insert(outbox_attempts).values(**vars(attempt)))
    return True


def holders(conn: sa.Connection) -> set[tuple[str, str]]:
    """(owner, epoch) of all leases."""
    query = sa.select(outbox.c.lease_owner, outbox.c.lease_epoch).where(
        outbox.c.lease_owner.is_not(None)
    )
    return {(row[0], row[1]) for row in conn.execute(query.distinct())}


def release(conn: sa.Connection, owner: str) -> int:
    """Ends all leases of one owner; how many."""
    query = sa.update(outbox).where(outbox.c.lease_owner == owner)
    return conn.execute(query.values(lease_owner=None)).rowcount


def get(conn: sa.Connection, project_id: str, delivery_id: str) -> DeliveryRow | None:
    query = sa.select(*_COLUMNS).where(
        outbox.c.id == delivery_id, outbox.c.project_id == project_id
    )
    row = conn.execute(query).first()
    return None if row is None else build(DeliveryRow, row)


def page(
    conn: sa.Connection,
    project_id: str,
    *,
    after: str | None = None,
    limit: int = 20,
    **equal: str | None,
) -> Page[DeliveryRow]:
    """Newest first; `equal` names columns (state, target, job_id, channel) and their values."""
    own = outbox.c.project_id == project_id
    query = sa.select(*_COLUMNS).where(own)
    for name, value in equal.items():
        if value is not None:
            query = query.where(outbox.c[name] == value)
    cursor = find_cursor(conn, outbox.c.seq, outbox.c.id, after, own)
    return fetch_page(conn, DeliveryRow, query, outbox.c.seq, cursor=cursor, limit=limit)


def attempts_of(conn: sa.Connection, delivery_ids: list[str]) -> dict[str, list[AttemptRow]]:
    """Oldest first, by delivery."""
    found: dict[str, list[AttemptRow]] = {delivery_id: [] for delivery_id in delivery_ids}
    query = (
        sa.select(*columns_of(AttemptRow, outbox_attempts))
        .where(outbox_attempts.c.delivery_id.in_(delivery_ids))
        .order_by(outbox_attempts.c.number)
    )
    for row in conn.execute(query):
        attempt = build(AttemptRow, row)
        found[attempt.delivery_id].append(attempt)
    return found


def send_again(conn: sa.Connection, delivery_id: str, now: int) -> None:
    """Due now, with all its time before it."""
    query = sa.update(outbox).where(outbox.c.id == delivery_id)
    conn.execute(query.values(state="waiting", since=now, due_at=now, finished_at=None))


def backlog(conn: sa.Connection) -> dict[str, Backlog]:
    """By channel."""
    waiting = outbox.c.state == "waiting"
    query = sa.select(
        outbox.c.channel,
        sa.func.count().filter(waiting),
        sa.func.min(outbox.c.since).filter(waiting),
        sa.func.count().filter(outbox.c.state == "dead"),
    ).where(outbox.c.state != "delivered")
    rows = conn.execute(query.group_by(outbox.c.channel))
    return {row[0]: Backlog(row[1], row[2], row[3]) for row in rows}


def prune(conn: sa.Connection, before: int) -> int:
    """Forgets what was finished before a time; how many."""
    old = sa.select(outbox.c.id).where(outbox.c.finished_at < before)
    conn.execute(sa.delete(outbox_attempts).where(outbox_attempts.c.delivery_id.in_(old)))
    return conn.execute(sa.delete(outbox).where(outbox.c.finished_at < before)).rowcount
