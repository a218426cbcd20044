"""Questions about the whole database whose answer should be "none"."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.rows import build, columns_of
from tunesmith.store.tables import checkpoints, events, files, jobs, models

_ENDED = ("succeeded", "failed", "cancelled")


def integrity(conn: sa.Connection) -> list[str]:
    """What SQLite itself finds wrong with the file."""
    checked = conn.exec_driver_sql("PRAGMA integrity_check").scalars()
    problems = [str(line) for line in checked if line != "ok"]
    dangling = conn.exec_driver_sql("PRAGMA foreign_key_check").all()
    return problems + [f"table {row[0]}, row {row[1]} refers to no {row[2]}" for row in dangling]


def ended_but_open(conn: sa.Connection) -> list[str]:
    """Jobs that have ended and still have a lease or a wish, or lack their time of end (I2)."""
    loose = sa.or_(
        jobs.c.finished_at.is_(None), jobs.c.lease_owner.is_not(None), jobs.c.control.is_not(None)
    )
    return _ids(conn, sa.select(jobs.c.id).where(jobs.c.status.in_(_ENDED), loose))


def open_but_finished(conn: sa.Connection) -> list[str]:
    """Jobs with a time of end or a model that have not ended (I2, I3)."""
    query = sa.select(jobs.c.id).where(
        jobs.c.status.not_in(_ENDED),
        sa.or_(jobs.c.finished_at.is_not(None), jobs.c.fine_tuned_model.is_not(None)),
    )
    return _ids(conn, query)


def succeeded_without_model(conn: sa.Connection) -> list[str]:
    """Jobs that say succeeded and name no model, tokens or last checkpoint (I3, I6)."""
    last = sa.exists().where(
        checkpoints.c.job_id == jobs.c.id, checkpoints.c.model_name == jobs.c.fine_tuned_model
    )
    lacking = sa.or_(
        jobs.c.fine_tuned_model.is_(None), jobs.c.trained_tokens.is_(None), sa.not_(last)
    )
    return _ids(conn, sa.select(jobs.c.id).where(jobs.c.status == "succeeded", lacking))


def models_of_unfinished_jobs(conn: sa.Connection) -> list[str]:
    """Final models whose job has not succeeded (I3)."""
    query = sa.select(models.c.name).join(jobs, jobs.c.id == models.c.job_id)
    return _ids(conn, query.where(models.c.kind == "tuned", jobs.c.status != "succeeded"))


def event_gaps(conn: sa.Connection) -> list[str]:
    """Jobs whose events are not numbered 1, 2, 3, ... (I5)."""
    wrong = sa.or_(sa.func.count() != sa.func.max(events.c.seq), sa.func.min(events.c.seq) != 1)
    return _ids(conn, sa.select(events.c.job_id).group_by(events.c.job_id).having(wrong))


def doubled_steps(conn: sa.Connection) -> list[str]:
    """Jobs that report a step's metrics twice (I5)."""
    step = sa.func.json_extract(events.c.data, "$.step")
    query = (
        sa.select(events.c.job_id)
        .where(events.c.type == "metrics")
        .group_by(events.c.job_id, step)
        .having(sa.func.count() > 1)
        .distinct()
    )
    return _ids(conn, query)


def files_with_blobs(conn: sa.Connection) -> list[FileRow]:
    """The files whose bytes must be there (I4), deleted ones still in use too."""
    query = sa.select(*columns_of(FileRow, files)).where(files.c.has_blob).order_by(files.c.seq)
    return [build(FileRow, row) for row in conn.execute(query)]


def holders(conn: sa.Connection) -> list[tuple[str, int]]:
    """(job, fence) of every lease (I1)."""
    query = sa.select(jobs.c.id, jobs.c.fence).where(jobs.c.lease_owner.is_not(None))
    return [(row.id, row.fence) for row in conn.execute(query)]


def _ids(conn: sa.Connection, query: sa.Select[Any]) -> list[str]:
    return [str(value) for value in conn.execute(query).scalars()]
