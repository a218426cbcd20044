"""The kept checkpoints of jobs, each servable under a model name of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import checkpoints


@dataclass(frozen=True)
class CheckpointRow:
    id: str
    job_id: str
    step: int
    model_name: str
    metrics: dict[str, Any]
    created_at: int


_COLUMNS = columns_of(CheckpointRow, checkpoints)


def insert(conn: sa.Connection, row: CheckpointRow) -> None:
    conn.execute(sa.insert(checkpoints).values(**vars(row)))


def drop(conn: sa.Connection, job_id: str, step: int) -> None:
    """Takes a checkpoint off the list; the model it was served as stays."""
    query = sa.delete(checkpoints).where(checkpoints.c.job_id == job_id)
    conn.execute(query.where(checkpoints.c.step == step))


def page(
    conn: sa.Connection, job_id: str, *, after: str | None = None, limit: int = 10
) -> Page[CheckpointRow]:
    """Latest step first."""
    own = checkpoints.c.job_id == job_id
    query = sa.select(*_COLUMNS).where(own)
    cursor = find_cursor(conn, checkpoints.c.step, checkpoints.c.id, after, own)
    return fetch_page(conn, CheckpointRow, query, checkpoints.c.step, cursor=cursor, limit=limit)


def by_step(conn: sa.Connection, job_id: str) -> dict[int, CheckpointRow]:
    query = sa.select(*_COLUMNS).where(checkpoints.c.job_id == job_id)
    return {row.step: build(CheckpointRow, row) for row in conn.execute(query)}
