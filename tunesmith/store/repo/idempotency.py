"""Idempotency keys of job creation: the same key and body is the same job."""

from __future__ import annotations

import sqlalchemy as sa

from tunesmith.store.tables import idempotency


def find(conn: sa.Connection, project_id: str, key: str) -> tuple[str, str] | None:
    """(sha256 of the body, job id) of the project's first request with this key."""
    query = sa.select(idempotency.c.body_sha256, idempotency.c.job_id)
    own = idempotency.c.project_id == project_id
    row = conn.execute(query.where(own, idempotency.c.key == key)).first()
    return None if row is None else (row[0], row[1])


def insert(
    conn: sa.Connection, project_id: str, key: str, body_sha256: str, job_id: str, now: int
) -> None:
    values = {"project_id": project_id, "key": key, "body_sha256": body_sha256}
    conn.execute(sa.insert(idempotency).values(**values, job_id=job_id, created_at=now))


def drop_old(conn: sa.Connection, before: int) -> int:
    """Forgets keys first used before a time; how many."""
    return conn.execute(sa.delete(idempotency).where(idempotency.c.created_at < before)).rowcount
