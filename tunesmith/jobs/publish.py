"""Makes adapters servable: adapters/<sha256>/ holds one, complete and never changed again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tunesmith.errors import JobError
from tunesmith.jobs.context import Context
from tunesmith.model.adapter_files import FILES, WEIGHTS, content_hash
from tunesmith.train.spec import CheckpointEntry, fsync_dir


def publish(
    context: Context, job_dir: Path, entries: Iterable[CheckpointEntry], fence: int
) -> dict[int, str]:
    """Puts the adapters of these checkpoints in place, durably; step -> its sha256 here.

    The hash is over configuration and weights, since both decide the answers. Repeating it changes
    nothing. Raises JobError for a checkpoint that is missing or not what its trainer wrote.
    """
    published = {}
    for entry in entries:
        source = job_dir / entry.path
        _check(source, entry)
        sha256 = published[entry.step] = content_hash(source)
        target = context.adapter_dir(sha256)
        if target.is_dir():
            # Young again: a sweep leaves it alone until its rows are written.
            os.utime(target)
        else:
            _place(source, target, fence)
    return published


def _check(source: Path, entry: CheckpointEntry) -> None:
    try:
        with (source / WEIGHTS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        found = None
    if found != entry.sha256:
        state = "missing" if found is None else "damaged"
        raise JobError(
            f"The checkpoint of step {entry.step} is {state} on the server's disk.",
            code="server_error",
        )


def _place(source: Path, target: Path, fence: int) -> None:
    draft = target.with_name(f".tmp-{target.name}-{fence}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in FILES:
        _link_or_copy(source / name, draft / name)
    fsync_dir(draft)
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
