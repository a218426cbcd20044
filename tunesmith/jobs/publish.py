"""Makes checkpoints servable, each in a directory that is complete and never changed again.

adapters/<sha256>/   an adapter, by the content of its two files
models/<sha256>/     a whole model, by the list of its files
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith import bases
from tunesmith.bases import BaseInfo
from tunesmith.errors import BaseModelError, JobError
from tunesmith.jobdir.files import fsync_dir
from tunesmith.jobdir.outcome import CheckpointEntry
from tunesmith.jobs.context import Context
from tunesmith.model.adapter_files import FILES, WEIGHTS, content_hash
from tunesmith.model.listing import LISTING, listed_files, problem_of


@dataclass(frozen=True)
class Published:
    directory: Path
    adapter_sha256: str | None
    """None: a whole model."""
    base: BaseInfo | None
    """The base that a whole model is; None for an adapter."""


def publish(
    context: Context, job_dir: Path, entries: Iterable[CheckpointEntry], fence: int
) -> dict[int, Published]:
    """Puts the weights of these checkpoints in place, durably; by step.

    Repeating it changes nothing. Raises JobError for a checkpoint that is missing or not what its
    trainer wrote.
    """
    return {
        entry.step: _model(context, job_dir / entry.path, entry, fence)
        if entry.form == "model"
        else _adapter(context, job_dir / entry.path, entry, fence)
        for entry in entries
    }


def _adapter(context: Context, source: Path, entry: CheckpointEntry, fence: int) -> Published:
    """The hash is over configuration and weights, since both decide the answers."""
    try:
        with (source / WEIGHTS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        found = None
    if found != entry.sha256:
        raise _unusable(entry, "missing" if found is None else "damaged")
    sha256 = content_hash(source)
    target = context.adapter_dir(sha256)
    _put(source, target, FILES, fence)
    return Published(target, sha256, None)


def _model(context: Context, source: Path, entry: CheckpointEntry, fence: int) -> Published:
    """The trainer has just read every byte; to do so again would stop the worker for gigabytes."""
    problem = problem_of(source, entry.sha256, deep=False)
    if problem is not None:
        raise _unusable(entry, f"damaged ({problem})")
    target = context.model_dir(entry.sha256)
    _put(source, target, (*listed_files(source), LISTING), fence)
    try:
        info = bases.describe(target, f"sha256:{entry.sha256}", context.clock)
    except BaseModelError as error:
        raise JobError(error.message, code="server_error") from error
    # Two models of one shape differ in nothing that describe() looks at.
    info = replace(info, sha256=entry.sha256, fingerprint=entry.sha256)
    return Published(target, None, info)


def _unusable(entry: CheckpointEntry, state: str) -> JobError:
    return JobError(
        f"The checkpoint of step {entry.step} is {state} on the server's disk.",
        code="server_error",
    )


def _put(source: Path, target: Path, names: Iterable[str], fence: int) -> None:
    if target.is_dir():
        # Young again: a sweep leaves it alone until its rows are written.
        os.utime(target)
        return
    draft = target.with_name(f".tmp-{target.name}-{fence}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in names:
        (draft / name).parent.mkdir(exist_ok=True)
        _link_or_copy(source / name, draft / name)
    for directory in {(draft / name).parent for name in names} | {draft}:
        fsync_dir(directory)
    try:
        draft.rename(target)
    except OSError:
        # Someone else has put the same bytes there.
        if not target.is_dir():
            raise
        shutil.rmtree(draft)
    fsync_dir(target.parent)


def _link_or_copy(source: Path, target: Path) -> None:
    """The trainer's files are durable and never written again, so a second name is as good."""
    try:
        os.link(source, target)
        return
    except OSError:
        shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
