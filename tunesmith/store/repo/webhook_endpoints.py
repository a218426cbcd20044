"""Addresses that a project wants its events sent to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import webhook_endpoints

# Each event is sent to all of them.
MAX_PER_PROJECT = 50


@dataclass(frozen=True)
class EndpointRow:
    id: str
    project_id: str
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int
    generation: int = 0
    """Rotations of its secret so far."""
    old_until: int | None = None
    """Until when the secret before this one signs as well."""

    def generations(self, now: int) -> list[int]:
        """Of the secrets that are valid at a time, the present one first."""
        if self.old_until is None or now >= self.old_until:
            return [self.generation]
        return [self.generation, self.generation - 1]


_COLUMNS = columns_of(EndpointRow, webhook_endpoints)


def insert(conn: sa.Connection, row: EndpointRow) -> None:
    conn.execute(sa.insert(webhook_endpoints).values(**vars(row)))


def get(conn: sa.Connection, project_id: str, endpoint_id: str) -> EndpointRow | None:
    query = sa.select(*_COLUMNS).where(
        webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.project_id == project_id
    )
    row = conn.execute(query).first()
    return None if row is None else build(EndpointRow, row)


def page(
    conn: sa.Connection, project_id: str, *, after: str | None = None, limit: int = 20
) -> Page[EndpointRow]:
    """Newest first."""
    table = webhook_endpoints.c
    own = table.project_id == project_id
    cursor = find_cursor(conn, table.seq, table.id, after, own)
    query = sa.select(*_COLUMNS).where(own)
    return fetch_page(conn, EndpointRow, query, table.seq, cursor=cursor, limit=limit)


def of_project(conn: sa.Connection, project_id: str) -> list[EndpointRow]:
    """All of them, oldest first."""
    query = sa.select(*_COLUMNS).where(webhook_endpoints.c.project_id == project_id)
    rows = conn.execute(query.order_by(webhook_endpoints.c.seq))
    return [build(EndpointRow, row) for row in rows]


def update(conn: sa.Connection, endpoint_id: str, **values: Any) -> None:
    query = sa.update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id)
    conn.execute(query.values(**values))


def delete(conn: sa.Connection, endpoint_id: str) -> None:
    conn.execute(sa.delete(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id))
