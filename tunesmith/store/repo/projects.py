"""Projects: what keeps the files, jobs and models of one team from those of another."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import projects


@dataclass(frozen=True)
class ProjectRow:
    id: str
    name: str
    created_at: int
    archived_at: int | None = None


_COLUMNS = columns_of(ProjectRow, projects)


def insert(conn: sa.Connection, row: ProjectRow) -> None:
    conn.execute(sa.insert(projects).values(**vars(row)))


def get(conn: sa.Connection, project_id: str) -> ProjectRow | None:
    """Archived ones too."""
    row = conn.execute(sa.select(*_COLUMNS).where(projects.c.id == project_id)).first()
    return None if row is None else build(ProjectRow, row)


def page(
    conn: sa.Connection,
    *,
    after: str | None = None,
    limit: int = 20,
    include_archived: bool = False,
) -> Page[ProjectRow]:
    """Oldest first."""
    shown = sa.true() if include_archived else projects.c.archived_at.is_(None)
    query = sa.select(*_COLUMNS).where(shown)
    # Where a list goes on may have been archived meanwhile.
    cursor = find_cursor(conn, projects.c.seq, projects.c.id, after, sa.true())
    return fetch_page(
        conn, ProjectRow, query, projects.c.seq, cursor=cursor, limit=limit, newest_first=False
    )


def rename(conn: sa.Connection, project_id: str, name: str) -> None:
    conn.execute(sa.update(projects).where(projects.c.id == project_id).values(name=name))


def archive(conn: sa.Connection, project_id: str, now: int) -> None:
    """Its keys open nothing from now on; nothing of it is deleted."""
    query = sa.update(projects).where(projects.c.id == project_id, projects.c.archived_at.is_(None))
    conn.execute(query.values(archived_at=now))
