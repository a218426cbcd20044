"""Base models that users registered, with other names (aliases) for them, and published ones.

A published base is a model whose weights were all trained. It is known by the hash of its content,
runs what was tuned to it, and is gone when nothing does any more; users call it by a model's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tunesmith.bases import BaseInfo
from tunesmith.store.repo.rows import columns_of
from tunesmith.store.tables import aliases, base_grants, bases, checkpoints, jobs, models

_COLUMNS = columns_of(BaseInfo, bases)


def insert(conn: sa.Connection, info: BaseInfo) -> None:
    """Registers a base; one of the same name is replaced."""
    values = vars(info) | {"path": str(info.path)}
    changed = sa.update(bases).where(bases.c.name == info.name).values(**values)
    if conn.execute(changed).rowcount == 0:
        conn.execute(sa.insert(bases).values(**values))


def get(conn: sa.Connection, name: str) -> BaseInfo | None:
    row = conn.execute(sa.select(*_COLUMNS).where(bases.c.name == name)).first()
    return None if row is None else _build(row)


def list_all(conn: sa.Connection) -> list[BaseInfo]:
    """The registered ones, in the order of registration."""
    query = sa.select(*_COLUMNS).where(bases.c.sha256.is_(None)).order_by(bases.c.seq)
    return [_build(row) for row in conn.execute(query)]


def published(conn: sa.Connection) -> list[BaseInfo]:
    """Models whose weights were all trained, oldest first."""
    query = sa.select(*_COLUMNS).where(bases.c.sha256.is_not(None)).order_by(bases.c.seq)
    return [_build(row) for row in conn.execute(query)]


def drop_unused(conn: sa.Connection) -> list[BaseInfo]:
    """Forgets the published bases that no model and no unfinished job needs; those it forgot."""
    doomed = [info for info in published(conn) if not users_of(conn, info.name)]
    for info in doomed:
        conn.execute(sa.delete(bases).where(bases.c.name == info.name))
    return doomed


def remove(conn: sa.Connection, name: str) -> bool:
    """Forgets a base and its aliases; False if there is none. See users_of() first."""
    conn.execute(sa.delete(aliases).where(aliases.c.base == name))
    conn.execute(sa.delete(base_grants).where(base_grants.c.base == name))
    return conn.execute(sa.delete(bases).where(bases.c.name == name)).rowcount == 1


def users_of(conn: sa.Connection, name: str) -> list[str]:
    """What stops working without a base: names of tuned models and ids of unfinished jobs."""
    tuned = sa.select(models.c.name).where(models.c.base == name).order_by(models.c.seq)
    unfinished = sa.select(jobs.c.id).where(jobs.c.base == name, jobs.c.finished_at.is_(None))
    return [*conn.execute(tuned).scalars(), *conn.execute(unfinished).scalars()]


def set_alias(conn: sa.Connection, alias: str, base: str, now: int) -> None:
    """Lets a name stand for a base; an alias of that name is moved. The base must be there."""
    moved = sa.update(aliases).where(aliases.c.name == alias).values(base=base, created_at=now)
    if conn.execute(moved).rowcount == 0:
        conn.execute(sa.insert(aliases).values(name=alias, base=base, created_at=now))


def remove_alias(conn: sa.Connection, alias: str) -> bool:
    return conn.execute(sa.delete(aliases).where(aliases.c.name == alias)).rowcount == 1


def list_aliases(conn: sa.Connection) -> dict[str, str]:
    """Alias -> name of its base, by alias."""
    query = sa.select(aliases.c.name, aliases.c.base).order_by(aliases.c.name)
    return {row.name: row.base for row in conn.execute(query)}


def root_of(conn: sa.Connection, name: str) -> str:
    """The registered base that a published one was trained from; of a registered one, itself.

    Goes back from job to job: jobs and their checkpoints stay when the models are deleted.
    """
    info = get(conn, name)
    if info is None or info.sha256 is None:
        return name
    job = sa.select(jobs.c.base, jobs.c.model)
    of_model = job.join(models, models.c.job_id == jobs.c.id).where(models.c.base == name)
    found = (
        conn.execute(of_model.limit(1)).first()
        or conn.execute(job.where(jobs.c.base == name).limit(1)).first()
    )
    while found is not None:
        name = found.base
        info = get(conn, name)
        if info is not None and info.sha256 is None:
            return name
        made = job.join(checkpoints, checkpoints.c.job_id == jobs.c.id)
        found = conn.execute(made.where(checkpoints.c.model_name == found.model)).first()
    return name


def resolve(conn: sa.Connection, name: str) -> BaseInfo | None:
    """The registered base of that name, or the one that an alias of that name stands for."""
    found = get(conn, name)
    if found is not None:
        return found if found.sha256 is None else None
    query = (
        sa.select(*_COLUMNS)
        .join(aliases, aliases.c.base == bases.c.name)
        .where(aliases.c.name == name)
    )
    row = conn.execute(query).first()
    return None if row is None else _build(row)


def _build(row: sa.Row[Any]) -> BaseInfo:
    values = dict(row._mapping)
    return BaseInfo(**values | {"path": Path(values["path"])})
