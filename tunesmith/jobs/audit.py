"""Holds a data directory against its invariants (I1 to I7, docs/operations.md); changes nothing.

Safe while a server runs: rows are read in one view first, files afterwards, and what is written in
between is only ever added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from tunesmith.bases import BaseInfo
from tunesmith.config import Settings
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import PROCESS_FILE
from tunesmith.jobdir.process import Process, is_alive
from tunesmith.jobdir.records import RecordError
from tunesmith.model import adapter_files
from tunesmith.model.listing import problem_of, sha256_of
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import Database
from tunesmith.store.repo import audit, bases, files, models
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.models import ModelRow

GARBAGE_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class Breach:
    message: str
    fix: str
    severity: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class Check:
    """One invariant and where it is broken."""

    name: str
    breaches: list[Breach]


def audit_directory(settings: Settings, db: Database, *, deep: bool = True) -> Iterator[Check]:
    """Every check, in order. `deep` also reads the content of all files and adapters."""
    with db.read() as conn:
        yield Check("database file", list(_integrity(conn)))
        yield Check("I1 one live trainer per job", list(_trainers(conn, settings.jobs_dir)))
        yield Check("I2 states of jobs", list(_states(conn)))
        tuned = models.all_rows(conn)
        published = bases.published(conn)
        in_use = audit.files_with_blobs(conn)
        known = files.known_blobs(conn)
        rows = list(_models(conn))
        events = list(_events(conn))
        paths = {info.name: info.path for info in bases.list_all(conn)}
    rows += _adapters(tuned, settings.adapters_dir, deep)
    rows += _whole_models(tuned, published, deep)
    yield Check("I3, I6 models and their weights", rows)
    yield Check("I4 files", list(_blobs(in_use, settings.blobs_dir, deep)))
    yield Check("I5 events of jobs", events)
    yield Check("I7 left-overs", list(_garbage(settings.blobs_dir, known)))
    yield Check("base models", list(_bases(paths)))


def _integrity(conn: sa.Connection) -> Iterator[Breach]:
    for problem in audit.integrity(conn):
        yield Breach(f"tunesmith.db: {problem}.", "Stop the server and restore a backup.")


def _trainers(conn: sa.Connection, jobs_dir: Path) -> Iterator[Breach]:
    """A live process must belong to a lease, and to its fence."""
    fences = dict(audit.holders(conn))
    for record in sorted(jobs_dir.glob(f"*/{PROCESS_FILE}")):
        try:
            process = read_record(Process, record)
        except RecordError as error:
            yield Breach(f"{record}: {error.message}", "Remove the file while no worker runs.")
            continue
        if process is None or not is_alive(process):
            continue
        job_id = record.parent.name
        if fences.get(job_id) is None or process.fence < fences[job_id]:
            yield Breach(
                f"{job_id}: process {process.pid} of fence {process.fence} still runs, and the "
                f"ledger does not know it (fence {fences.get(job_id)}).",
                f"It cannot publish anything. If it does not end by itself: kill {process.pid}",
                "warning",
            )


def _states(conn: sa.Connection) -> Iterator[Breach]:
    report: list[tuple[str, Callable[[sa.Connection], list[str]]]] = [
        ("has ended but is still held or has no time of end", audit.ended_but_open),
        ("has a time of end or a model but has not ended", audit.open_but_finished),
    ]
    for text, query in report:
        for job_id in query(conn):
            yield Breach(f"{job_id} {text}.", "Restore a backup, and report this as a bug.")


def _models(conn: sa.Connection) -> Iterator[Breach]:
    for job_id in audit.succeeded_without_model(conn):
        yield Breach(
            f"{job_id} succeeded but lacks its model, token count or last checkpoint.",
            "Restore a backup, or run the job again.",
        )
    for name in audit.models_of_unfinished_jobs(conn):
        yield Breach(f"{name} is published, but its job has not succeeded.", "Delete the model.")


def _adapters(rows: list[ModelRow], adapters_dir: Path, deep: bool) -> Iterator[Breach]:
    by_hash: dict[str, list[str]] = {}
    for row in rows:
        if row.adapter_sha256 is not None:
            by_hash.setdefault(row.adapter_sha256, []).append(row.name)
    for sha256, owners in by_hash.items():
        directory = adapters_dir / sha256
        whom = ", ".join(owners)
        if any(not (directory / file).is_file() for file in adapter_files.FILES):
            yield Breach(f"{whom}: the weights {directory} are missing.", "Restore a backup.")
        elif deep and adapter_files.content_hash(directory) != sha256:
            yield Breach(
                f"{whom}: the weights {directory} are not those that were trained.",
                "Restore this directory from a backup; the model must not be used.",
            )


def _whole_models(rows: list[ModelRow], published: list[BaseInfo], deep: bool) -> Iterator[Breach]:
    for info in published:
        problem = problem_of(info.path, info.sha256 or "", deep=deep)
        if problem is not None:
            whom = ", ".join(row.name for row in rows if row.base == info.name)
            yield Breach(
                f"{whom}: the weights {info.path} are not those that were trained: {problem}.",
                "Restore this directory from a backup; the model must not be used.",
            )


def _blobs(rows: list[FileRow], blobs_dir: Path, deep: bool) -> Iterator[Breach]:
    blobs = LocalBlobs(blobs_dir)
    for row in rows:
        path = blobs.path(row.id)
        if not path.is_file():
            yield Breach(f"{row.id} ({row.filename}): its content is missing.", "Restore a backup.")
        elif path.stat().st_size != row.num_bytes or (deep and sha256_of(path) != row.sha256):
            yield Breach(
                f"{row.id} ({row.filename}): its content is not what was uploaded.",
                "Restore it from a backup, or upload it again.",
            )


def _events(conn: sa.Connection) -> Iterator[Breach]:
    for job_id in audit.event_gaps(conn):
        yield Breach(f"{job_id}: its events have gaps.", "Report this as a bug.")
    for job_id in audit.doubled_steps(conn):
        yield Breach(f"{job_id}: a step is reported twice.", "Report this as a bug.")


def _garbage(blobs_dir: Path, known: set[str]) -> Iterator[Breach]:
    fix = "A running worker sweeps it; start the server."
    orphans = set(LocalBlobs(blobs_dir).ids_older_than(GARBAGE_AFTER_S)) - known
    if orphans:
        yield Breach(f"{len(orphans)} blobs belong to no file.", fix, "warning")
    limit = time.time() - GARBAGE_AFTER_S
    stale = [path for path in blobs_dir.glob("*/*.part") if path.stat().st_mtime < limit]
    if stale:
        yield Breach(f"{len(stale)} uploads were broken off long ago.", fix, "warning")


def _bases(paths: dict[str, Path]) -> Iterator[Breach]:
    for name, path in paths.items():
        if not (path / "config.json").is_file():
            yield Breach(
                f"Base {name}: nothing at {path} any more.",
                "Put the directory back, or add the base again from where it is now.",
            )
