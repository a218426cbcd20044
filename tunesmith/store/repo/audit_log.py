"""Who changed what, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesmith.access import Caller
from tunesmith.ids import AUDIT_LOG, Rng, new_id
from tunesmith.store.repo.rows import Page, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import audit_log


@dataclass(frozen=True)
class AuditRow:
    id: str
    effective_at: int
    action: str
    """Such as "project.created"."""
    project_id: str | None
    key_id: str | None
    """None: the command line, or the server itself."""
    user_id: str | None
    object_id: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """What of the log is asked for; empty = everything."""

    actions: Sequence[str] = ()
    projects: Sequence[str] = ()
    actors: Sequence[str] = ()
    """Ids of keys or users."""
    objects: Sequence[str] = ()
    since: int | None = None
    until: int | None = None
    """Both included."""

    def clause(self) -> sa.ColumnElement[bool]:
        table = audit_log.c
        found: list[sa.ColumnElement[bool]] = []
        for column, values in (
            (table.action, self.actions),
            (table.project_id, self.projects),
            (table.object_id, self.objects),
        ):
            if values:
                found.append(column.in_(values))
        if self.actors:
            found.append(sa.or_(table.key_id.in_(self.actors), table.user_id.in_(self.actors)))
        if self.since is not None:
            found.append(table.effective_at >= self.since)
        if self.until is not None:
            found.append(table.effective_at <= self.until)
        return sa.and_(sa.true(), *found)


_COLUMNS = columns_of(AuditRow, audit_log)


def record(
    conn: sa.Connection,
    rng: Rng,
    now: int,
    caller: Caller | None,
    action: str,
    object_id: str,
    detail: dict[str, Any] | None = None,
    *,
    project_id: str | None = None,
) -> None:
    """Notes a change. Without a caller it is the command line's or the server's own.

    `project_id` is for changes that are not of the caller's own project.
    """
    row = AuditRow(
        id=new_id(AUDIT_LOG, rng),
        effective_at=now,
        action=action,
        project_id=project_id or (caller.project_id if caller else None),
        key_id=caller.key_id if caller else None,
        user_id=caller.user_id if caller else None,
        object_id=object_id,
        detail=detail or {},
    )
    conn.execute(sa.insert(audit_log).values(**vars(row)))


def page(
    conn: sa.Connection, wanted: Filter, *, after: str | None = None, limit: int = 20
) -> Page[AuditRow]:
    """Newest first."""
    cursor = find_cursor(conn, audit_log.c.seq, audit_log.c.id, after, sa.true())
    query = sa.select(*_COLUMNS).where(wanted.clause())
    return fetch_page(conn, AuditRow, query, audit_log.c.seq, cursor=cursor, limit=limit)
