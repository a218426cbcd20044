"""Whom a project wants told by e-mail, and the keys of the trackers it uses."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from tunesmith.store.repo.rows import build, columns_of
from tunesmith.store.tables import notices


@dataclass(frozen=True)
class NoticeRow:
    project_id: str
    emails: list[str] = field(default_factory=list)
    wandb_key: str | None = None
    """Sealed (store/seal.py)."""


def get(conn: sa.Connection, project_id: str) -> NoticeRow:
    """What was set, or nothing of it."""
    query = sa.select(*columns_of(NoticeRow, notices)).where(notices.c.project_id == project_id)
    row = conn.execute(query).first()
    return NoticeRow(project_id) if row is None else build(NoticeRow, row)


def put(conn: sa.Connection, row: NoticeRow) -> None:
    conn.execute(sa.delete(notices).where(notices.c.project_id == row.project_id))
    conn.execute(sa.insert(notices).values(**vars(row)))
