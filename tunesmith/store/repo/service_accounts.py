"""Service accounts: programs as users of a project, which no person's leaving stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesmith.access import Role
from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import service_accounts


@dataclass(frozen=True)
class ServiceAccountRow:
    id: str
    project_id: str
    name: str
    role: Role
    created_at: int


_COLUMNS = columns_of(ServiceAccountRow, service_accounts)
_HERE = service_accounts.c.deleted_at.is_(None)


def insert(conn: sa.Connection, row: ServiceAccountRow) -> None:
    conn.execute(sa.insert(service_accounts).values(**vars(row)))


def get(conn: sa.Connection, project_id: str, account_id: str) -> ServiceAccountRow | None:
    own = service_accounts.c.project_id == project_id
    query = sa.select(*_COLUMNS).where(own, service_accounts.c.id == account_id, _HERE)
    row = conn.execute(query).first()
    return None if row is None else build(ServiceAccountRow, row)


def page(
    conn: sa.Connection, project_id: str, *, after: str | None = None, limit: int = 20
) -> Page[ServiceAccountRow]:
    """Oldest first."""
    own = service_accounts.c.project_id == project_id
    order = service_accounts.c.seq
    cursor = find_cursor(conn, order, service_accounts.c.id, after, own)
    query = sa.select(*_COLUMNS).where(own, _HERE)
    return fetch_page(
        conn, ServiceAccountRow, query, order, cursor=cursor, limit=limit, newest_first=False
    )


def update(conn: sa.Connection, project_id: str, account_id: str, **values: Any) -> bool:
    own = service_accounts.c.project_id == project_id
    query = sa.update(service_accounts).where(own, service_accounts.c.id == account_id, _HERE)
    return conn.execute(query.values(**values)).rowcount == 1
