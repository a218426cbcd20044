"""What happened to a job: numbered from 1 without a gap, each key at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tunesmith.ids import EVENT, Rng, new_id
from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import events


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
