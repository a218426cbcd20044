"""Bases that are reserved to some projects. A base that nobody was granted is open to all."""

from __future__ import annotations

import sqlalchemy as sa

from tunesmith.bases import BaseInfo
from tunesmith.store.repo import bases
from tunesmith.store.tables import base_grants


def grant(conn: sa.Connection, base: str, project_id: str, now: int) -> None:
    if project_id not in holders(conn, base):
        row = {"base": base, "project_id": project_id, "created_at": now}
        conn.execute(sa.insert(base_grants).values(**row))


def revoke(conn: sa.Connection, base: str, project_id: str) -> bool:
    """False if it had none. With the last one gone the base is open to all again."""
    query = sa.delete(base_grants).where(base_grants.c.base == base)
    return conn.execute(query.where(base_grants.c.project_id == project_id)).rowcount == 1


def holders(conn: sa.Connection, base: str) -> list[str]:
    """The projects that a base is reserved to; none: it is open to all."""
    query = sa.select(base_grants.c.project_id).where(base_grants.c.base == base)
    return list(conn.execute(query.order_by(base_grants.c.project_id)).scalars())


def is_open(conn: sa.Connection, project_id: str, base: str) -> bool:
    found = holders(conn, base)
    return not found or project_id in found


def resolve(conn: sa.Connection, project_id: str, name: str) -> BaseInfo | None:
    """The base that a project may use under a name or alias; as good as none if it may not."""
    base = bases.resolve(conn, name)
    return base if base is not None and is_open(conn, project_id, base.name) else None


def closed(conn: sa.Connection, project_id: str) -> set[str]:
    """The bases that are reserved to others."""
    all_rows = conn.execute(sa.select(base_grants.c.base, base_grants.c.project_id)).all()
    own = {row.base for row in all_rows if row.project_id == project_id}
    return {row.base for row in all_rows} - own
