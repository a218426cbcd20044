"""What happened to a job: numbered from 1 without a gap, each key at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tunesmith.errors import BadRequest
from tunesmith.ids import EVENT, Rng, new_id
from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import events, jobs

# An id for the place before all events.
BEGINNING = f"{EVENT}0"
# The events of all jobs in the order of their commits: writers follow one another, no event is
# ever deleted, and SQLite numbers what is added. Only good while the file is open: a VACUUM may
# number anew, so what is told to clients is an event's id.
_number: sa.ColumnElement[int] = sa.literal_column("events.rowid", sa.Integer)


@dataclass(frozen=True)
class NewEvent:
    key: str
    """Unique within the job: a second event with it is the same one, and dropped."""
    message: str
    created_at: int
    level: str = "info"
    type: str = "message"
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EventRow:
    id: str
    job_id: str
    seq: int
    key: str
    created_at: int
    level: str
    type: str
    message: str
    data: dict[str, Any]


_COLUMNS = columns_of(EventRow, events)


def append(conn: sa.Connection, rng: Rng, job_id: str, new: Sequence[NewEvent]) -> int:
    """Adds those whose key is new, in order; how many. Needs a write transaction.

    Times never run backwards within a job, whatever the clocks of its writers did.
    """
    fresh = _without_known(conn, job_id, new)
    if not fresh:
        return 0
    last = conn.execute(
        sa.select(events.c.seq, events.c.created_at)
        .where(events.c.job_id == job_id)
        .order_by(events.c.seq.desc())
        .limit(1)
    ).first()
    seq, created_at = (0, 0) if last is None else (int(last[0]), int(last[1]))
    rows = []
    for event in fresh:
        seq, created_at = seq + 1, max(created_at, event.created_at)
        rows.append(
            vars(event)
            | {"id": new_id(EVENT, rng), "job_id": job_id, "seq": seq, "created_at": created_at}
        )
    conn.execute(sa.insert(events), rows)
    return len(rows)


def _without_known(conn: sa.Connection, job_id: str, new: Sequence[NewEvent]) -> list[NewEvent]:
    by_key: dict[str, NewEvent] = {}
    for event in new:
        by_key.setdefault(event.key, event)
    keys = list(by_key)
    for start in range(0, len(keys), 500):
        query = sa.select(events.c.key).where(
            events.c.job_id == job_id, events.c.key.in_(keys[start : start + 500])
        )
        for known in conn.execute(query).scalars():
            del by_key[known]
    return list(by_key.values())


def page(
    conn: sa.Connection, job_id: str, *, after: str | None = None, limit: int = 20
) -> Page[EventRow]:
    """Newest first. Pages stay disjoint while new events arrive."""
    own = events.c.job_id == job_id
    query = sa.select(*_COLUMNS).where(own)
    cursor = find_cursor(conn, events.c.seq, events.c.id, after, own)
    return fetch_page(conn, EventRow, query, events.c.seq, cursor=cursor, limit=limit)


def after_seq(
    conn: sa.Connection, job_id: str, seq: int = 0, *, type: str | None = None
) -> list[EventRow]:
    """Oldest first, those numbered higher than `seq`."""
    query = sa.select(*_COLUMNS).where(events.c.job_id == job_id, events.c.seq > seq)
    if type is not None:
        query = query.where(events.c.type == type)
    return [build(EventRow, row) for row in conn.execute(query.order_by(events.c.seq))]


def last_place(conn: sa.Connection) -> tuple[int, str]:
    """(number, id) of the newest event of all jobs; (0, BEGINNING) where there is none."""
    row = conn.execute(sa.select(_number, events.c.id).order_by(_number.desc()).limit(1)).first()
    return (0, BEGINNING) if row is None else (int(row[0]), str(row[1]))


def number_of(conn: sa.Connection, event_id: str) -> int:
    """An event's number among those of all jobs. Raises BadRequest for an unknown one."""
    if event_id == BEGINNING:
        return 0
    number = conn.execute(sa.select(_number).where(events.c.id == event_id)).scalar()
    if number is None:
        raise BadRequest(f"No such event to continue after: {event_id:.80}", param="after")
    return int(number)


def between(
    conn: sa.Connection,
    after: int,
    until: int | None,
    *,
    project_id: str | None,
    job_id: str | None,
    limit: int,
) -> list[tuple[int, EventRow]]:
    """The first events of all jobs, of a project's or of one job, numbered higher than `after` and
    at most `until`, each with its number."""
    query = sa.select(_number, *_COLUMNS).where(_number > after)
    if until is not None:
        query = query.where(_number <= until)
    if project_id is not None:
        own = sa.select(jobs.c.id).where(jobs.c.project_id == project_id)
        query = query.where(events.c.job_id.in_(own))
    if job_id is not None:
        query = query.where(events.c.job_id == job_id)
    rows = conn.execute(query.order_by(_number).limit(limit))
    return [(int(number), EventRow(*columns)) for number, *columns in rows]


def metrics(conn: sa.Connection, job_id: str) -> list[tuple[int, dict[str, Any]]]:
    """(created_at, data) of a job's metrics, oldest first."""
    query = (
        sa.select(events.c.created_at, events.c.data)
        .where(events.c.job_id == job_id, events.c.type == "metrics")
        .order_by(events.c.seq)
    )
    return [(int(created_at), data) for created_at, data in conn.execute(query)]
