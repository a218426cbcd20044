"""Uploaded files and results. The bytes are in the blob store, under the file's id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from tunesmith.store.repo.rows import Page, build, columns_of, fetch_page, find_cursor
from tunesmith.store.tables import files, jobs

FINE_TUNE = "fine-tune"
FINE_TUNE_RESULTS = "fine-tune-results"

# Jobs in these states may still read their files.
_LIVE = ("validating_files", "queued", "running", "paused")


@dataclass(frozen=True)
class FileRow:
    id: str
    project_id: str
    filename: str
    """As the client sent it: shown, never used as a path."""
    num_bytes: int
    purpose: str
    sha256: str
    created_at: int
    expires_at: int | None = None


def insert(conn: sa.Connection, row: FileRow) -> None:
    """Call it when the blob is durable: a row without a blob must never exist."""
    conn.execute(sa.insert(files).values(**vars(row), has_blob=True))


def get(conn: sa.Connection, project_id: str, file_id: str) -> FileRow | None:
    """The file, unless the project has none of that id or it is deleted."""
    query = sa.select(*columns_of(FileRow, files)).where(
        files.c.id == file_id, files.c.project_id == project_id, files.c.deleted_at.is_(None)
    )
    row = conn.execute(query).first()
    return None if row is None else build(FileRow, row)


def known(conn: sa.Connection, file_id: str) -> FileRow | None:
    """The file, also a deleted one."""
    row = conn.execute(sa.select(*columns_of(FileRow, files)).where(files.c.id == file_id)).first()
    return None if row is None else build(FileRow, row)


def page(
    conn: sa.Connection,
    project_id: str,
    *,
    after: str | None = None,
    limit: int = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Page[FileRow]:
    """By creation; `after` may name a file deleted meanwhile."""
    own = files.c.project_id == project_id
    query = sa.select(*columns_of(FileRow, files)).where(own, files.c.deleted_at.is_(None))
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    cursor = find_cursor(conn, files.c.seq, files.c.id, after, own)
    newest_first = order == "desc"
    return fetch_page(
        conn, FileRow, query, files.c.seq, cursor=cursor, limit=limit, newest_first=newest_first
    )


def mark_deleted(conn: sa.Connection, project_id: str, file_id: str, now: int) -> bool:
    """Hides a file; False if there is none. A live job keeps reading it, then sweep() finds it."""
    query = sa.update(files).where(
        files.c.id == file_id, files.c.project_id == project_id, files.c.deleted_at.is_(None)
    )
    return conn.execute(query.values(deleted_at=now)).rowcount == 1


def expire(conn: sa.Connection, now: int) -> int:
    """Hides the files whose time is up; how many."""
    query = sa.update(files).where(files.c.deleted_at.is_(None), files.c.expires_at <= now)
    return conn.execute(query.values(deleted_at=now)).rowcount


def disposable(conn: sa.Connection) -> list[str]:
    """Ids of deleted files whose blob no live job needs any more."""
    live = jobs.c.status.in_(_LIVE)
    in_use = sa.exists().where(
        live, sa.or_(jobs.c.training_file == files.c.id, jobs.c.validation_file == files.c.id)
    )
    query = sa.select(files.c.id).where(
        files.c.deleted_at.is_not(None), files.c.has_blob, sa.not_(in_use)
    )
    return list(conn.execute(query).scalars())


def mark_disposed(conn: sa.Connection, file_ids: list[str]) -> None:
    conn.execute(sa.update(files).where(files.c.id.in_(file_ids)).values(has_blob=False))


def drop_tombstones(conn: sa.Connection, before: int) -> int:
    """Forgets files that were deleted before a time and whose blobs are gone; how many."""
    query = sa.delete(files).where(files.c.deleted_at < before, sa.not_(files.c.has_blob))
    return conn.execute(query).rowcount


def known_blobs(conn: sa.Connection) -> set[str]:
    """Ids whose blobs must be there."""
    return set(conn.execute(sa.select(files.c.id).where(files.c.has_blob)).scalars())
