"""People of the organisation, and their roles in projects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from tunesmith.access import Role
from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import project_users, users

OrganizationRole = Literal["owner", "reader"]


@dataclass(frozen=True)
class UserRow:
    id: str
    email: str
    name: str
    role: OrganizationRole
    added_at: int


@dataclass(frozen=True)
class MemberRow:
    """A user in one project."""

    user_id: str
    email: str
    name: str
    role: Role
    added_at: int


_COLUMNS = columns_of(UserRow, users)
_HERE = users.c.deleted_at.is_(None)
_MEMBER = (
    project_users.c.user_id,
    users.c.email,
    users.c.name,
    project_users.c.role,
    project_users.c.added_at,
)


def insert(conn: sa.Connection, row: UserRow) -> None:
    """Adds a person; one who left comes back under the old id."""
    back = sa.update(users).where(users.c.email == row.email, users.c.deleted_at.is_not(None))
    values = {"name": row.name, "role": row.role, "added_at": row.added_at, "deleted_at": None}
    if conn.execute(back.values(**values)).rowcount == 0:
        conn.execute(sa.insert(users).values(**vars(row)))


def get(conn: sa.Connection, user_id: str) -> UserRow | None:
    row = conn.execute(sa.select(*_COLUMNS).where(users.c.id == user_id, _HERE)).first()
    return None if row is None else build(UserRow, row)


def by_email(conn: sa.Connection, email: str) -> UserRow | None:
    row = conn.execute(sa.select(*_COLUMNS).where(users.c.email == email, _HERE)).first()
    return None if row is None else build(UserRow, row)


def page(
    conn: sa.Connection,
    *,
    after: str | None = None,
    limit: int = 20,
    emails: Sequence[str] | None = None,
) -> Page[UserRow]:
    """Oldest first."""
    query = sa.select(*_COLUMNS).where(_HERE)
    if emails:
        query = query.where(users.c.email.in_(emails))
    cursor = find_cursor(conn, users.c.seq, users.c.id, after, sa.true())
    return fetch_page(
        conn, UserRow, query, users.c.seq, cursor=cursor, limit=limit, newest_first=False
    )


def set_role(conn: sa.Connection, user_id: str, role: OrganizationRole) -> None:
    conn.execute(sa.update(users).where(users.c.id == user_id).values(role=role))


def remove(conn: sa.Connection, user_id: str, now: int) -> None:
    """Takes a person out of the organisation and all projects."""
    conn.execute(sa.delete(project_users).where(project_users.c.user_id == user_id))
    conn.execute(sa.update(users).where(users.c.id == user_id, _HERE).values(deleted_at=now))


def join(conn: sa.Connection, project_id: str, user_id: str, role: Role, now: int) -> None:
    """Adds a user to a project, or gives one who is there another role."""
    there = sa.update(project_users).where(
        project_users.c.project_id == project_id, project_users.c.user_id == user_id
    )
    if conn.execute(there.values(role=role)).rowcount == 0:
        row = {"project_id": project_id, "user_id": user_id, "role": role, "added_at": now}
        conn.execute(sa.insert(project_users).values(**row))


def member(conn: sa.Connection, project_id: str, user_id: str) -> MemberRow | None:
    query = _members(project_id).where(users.c.id == user_id)
    row = conn.execute(query).first()
    return None if row is None else build(MemberRow, row)


def members(
    conn: sa.Connection, project_id: str, *, after: str | None = None, limit: int = 20
) -> Page[MemberRow]:
    """Oldest first; `after` is the id of a user of the project."""
    own = project_users.c.project_id == project_id
    cursor = find_cursor(conn, project_users.c.seq, project_users.c.user_id, after, own)
    return fetch_page(
        conn,
        MemberRow,
        _members(project_id),
        project_users.c.seq,
        cursor=cursor,
        limit=limit,
        newest_first=False,
    )


def leave(conn: sa.Connection, project_id: str, user_id: str) -> bool:
    own = project_users.c.project_id == project_id
    query = sa.delete(project_users).where(own, project_users.c.user_id == user_id)
    return conn.execute(query).rowcount == 1


def _members(project_id: str) -> sa.Select[tuple[str, str, str, Role, int]]:
    query = sa.select(*_MEMBER).join(users, users.c.id == project_users.c.user_id)
    return query.where(project_users.c.project_id == project_id, _HERE)
