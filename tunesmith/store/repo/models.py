"""Models that jobs made: the final one of each job and its kept checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from tunesmith.store.repo.rows import build, columns_of
from tunesmith.store.tables import jobs, models

Kind = Literal["tuned", "checkpoint"]


@dataclass(frozen=True)
class ModelRow:
    name: str
    project_id: str
    kind: Kind
    label: str
    """The base part of the name, as the user called the base: "gpt-4o-mini"."""
    base: str
    """Name of the base it runs on; where all weights were trained, of a base of its own."""
    adapter_sha256: str | None
    """Its files are in adapters/<sha256>. None: the base is the model."""
    job_id: str
    created_at: int
    owned_by: str


_COLUMNS = columns_of(ModelRow, models)


def insert(conn: sa.Connection, row: ModelRow) -> None:
    conn.execute(sa.insert(models).values(**vars(row)))


def get(conn: sa.Connection, project_id: str, name: str) -> ModelRow | None:
    own = models.c.project_id == project_id
    row = conn.execute(sa.select(*_COLUMNS).where(models.c.name == name, own)).first()
    return None if row is None else build(ModelRow, row)


def get_any(conn: sa.Connection, name: str) -> ModelRow | None:
    """Of whichever project: for the command line."""
    row = conn.execute(sa.select(*_COLUMNS).where(models.c.name == name)).first()
    return None if row is None else build(ModelRow, row)


def of_project(conn: sa.Connection, project_id: str) -> list[ModelRow]:
    """Oldest first."""
    query = sa.select(*_COLUMNS).where(models.c.project_id == project_id)
    return [build(ModelRow, row) for row in conn.execute(query.order_by(models.c.seq))]


def all_rows(conn: sa.Connection) -> list[ModelRow]:
    """Of all projects, oldest first."""
    return [
        build(ModelRow, row) for row in conn.execute(sa.select(*_COLUMNS).order_by(models.c.seq))
    ]


def delete(conn: sa.Connection, project_id: str, name: str) -> bool:
    """Forgets a name; False if there is none. Its files go when no name needs them (sweep)."""
    own = models.c.project_id == project_id
    return conn.execute(sa.delete(models).where(models.c.name == name, own)).rowcount == 1


def adapters_in_use(conn: sa.Connection) -> set[str]:
    """Hashes that a model, or a job that has yet to end, refers to."""
    query = sa.select(models.c.adapter_sha256).where(models.c.adapter_sha256.is_not(None))
    named = set(conn.execute(query.distinct()).scalars())
    starts = sa.select(jobs.c.start_adapter).where(
        jobs.c.start_adapter.is_not(None), jobs.c.finished_at.is_(None)
    )
    return named | set(conn.execute(starts).scalars())
