"""Removes what nothing refers to any more. Rows decide; files follow."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from tunesmith.jobdir.layout import CHECKPOINTS_DIR
from tunesmith.jobs.context import Context
from tunesmith.jobs.states import TERMINAL
from tunesmith.store.repo import bases, files, idempotency, jobs, models

log = logging.getLogger(__name__)

DAY_S = 86_400
# Between the files of a model and its rows lies a moment in which nothing refers to them.
PUBLISHED_GRACE_S = 600
IDEMPOTENCY_DAYS = 30
TRASH = ".trash-"


def sweep(context: Context) -> None:
    """One round; safe beside other workers, uploads and publishing."""
    _sweep_files(context)
    _sweep_published(context)
    _sweep_job_dirs(context)
    with context.db.write() as conn:
        idempotency.drop_old(conn, context.now() - IDEMPOTENCY_DAYS * DAY_S)


def _sweep_files(context: Context) -> None:
    with context.db.write() as conn:
        files.expire(conn, context.now())
        doomed = files.disposable(conn)
        files.drop_tombstones(conn, context.now() - DAY_S)
    for file_id in doomed:
        context.blobs.delete(file_id)
    if doomed:
        with context.db.write() as conn:
            files.mark_disposed(conn, doomed)
    context.blobs.sweep_unfinished(DAY_S)
    old = set(context.blobs.ids_older_than(DAY_S))
    with context.db.read() as conn:
        orphans = old - files.known_blobs(conn)
    for file_id in orphans:
        context.blobs.delete(file_id)
    if doomed or orphans:
        log.info("removed the contents of %d files", len(doomed) + len(orphans))


def _sweep_published(context: Context) -> None:
    """Takes weights away inside a write transaction: publishing looks for them in one."""
    settings, limit = context.settings, time.time() - PUBLISHED_GRACE_S
    found = [*_children(settings.adapters_dir), *_children(settings.models_dir)]
    old = [path for path in found if path.stat().st_mtime < limit]
    if not old:
        return
    with context.db.write() as conn:
        bases.drop_unused(conn)
        in_use = models.adapters_in_use(conn) | {info.sha256 for info in bases.published(conn)}
        for path in old:
            if path.name in in_use or path.stat().st_mtime >= limit:
                continue
            if not path.name.startswith("."):
                path.rename(path.with_name(f"{TRASH}{path.name}"))
    for path in [*_children(settings.adapters_dir), *_children(settings.models_dir)]:
        if path.name.startswith(TRASH) or (path.name.startswith(".") and path in old):
            shutil.rmtree(path, ignore_errors=True)


def _sweep_job_dirs(context: Context) -> None:
    """Ended jobs need no checkpoints: what is served of them was published."""
    heavy = [
        path for path in _children(context.settings.jobs_dir) if (path / CHECKPOINTS_DIR).is_dir()
    ]
    with context.db.read() as conn:
        rows = jobs.many(conn, [path.name for path in heavy])
    for path in heavy:
        job = rows.get(path.name)
        if job is not None and job.status in TERMINAL:
            shutil.rmtree(path / CHECKPOINTS_DIR, ignore_errors=True)


def _children(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
