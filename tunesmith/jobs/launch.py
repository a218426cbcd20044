"""Prepares a job's directory and starts its process."""

from __future__ import annotations

from pathlib import Path

from tunesmith.config import Settings
from tunesmith.errors import JobError
from tunesmith.jobdir.files import read_record, write_record
from tunesmith.jobdir.layout import (
    CONTROL_FILE,
    LOG_FILE,
    PROCESS_FILE,
    RESULT_FILE,
    SPEC_FILE,
    VALIDATION_FILE,
)
from tunesmith.jobdir.records import RecordError
from tunesmith.jobdir.spec import BaseRef, FileRef, Moderation, Spec
from tunesmith.jobs.context import Context
from tunesmith.jobs.executor import Executor
from tunesmith.jobs.follow import Run
from tunesmith.jobs.ledger import LeaseLost, read_held
from tunesmith.jobs.request import method_of
from tunesmith.store.repo import bases
from tunesmith.store.repo.jobs import JobRow

# What the next process must not take for its own; checkpoints, plan and events are to stay.
_STALE = (RESULT_FILE, CONTROL_FILE, PROCESS_FILE)


def launch(context: Context, executor: Executor, run: Run) -> None:
    """Writes spec.json under the run's fence and starts the process of its phase.

    Raises LeaseLost where a later holder has launched already, LaunchError where trying again may
    help, JobError where it would not.
    """
    with context.db.read() as conn:
        job = read_held(conn, run.job_id, run.fence)
        base = bases.get(conn, job.base)
    if base is None:
        raise JobError(
            f"The base model '{job.base}' was removed from the server before the job ended. "
            "Register it again with `tunesmith base add`, then create the job again.",
            code="model_not_available",
            param="model",
        )
    run.job_dir.mkdir(parents=True, exist_ok=True)
    _check_fence(run)
    for name in _STALE:
        (run.job_dir / name).unlink(missing_ok=True)
    if run.phase == "validate":
        (run.job_dir / VALIDATION_FILE).unlink(missing_ok=True)
    text = _spec(context, job, run.fence, BaseRef(base.name, base.path))
    write_record(text, run.job_dir / SPEC_FILE)
    log = run.job_dir / LOG_FILE
    run.log_start = log.stat().st_size if log.exists() else 0
    run.handle = executor.launch(run.phase, run.job_dir)
    run.launch_due = False
    run.min_fence = run.fence
    run.pace = None
    run.progress_at_s = context.ticking_s()


def was_launched(context: Context, job: JobRow) -> bool:
    """Whether the holder before got as far as a spec; else there is nothing that can be found."""
    return _last_fence(context.job_dir(job.id)) >= job.launch_fence


def _check_fence(run: Run) -> None:
    """A worker that slept through the loss of its lease must not undo its successor's launch."""
    if _last_fence(run.job_dir) > run.fence:
        raise LeaseLost(run.job_id)


def _last_fence(job_dir: Path) -> int:
    """Of the spec that lies there; below every fence where none can be read."""
    try:
        spec = read_record(Spec, job_dir / SPEC_FILE)
    except RecordError:
        return -1
    return -1 if spec is None else spec.fence


def _spec(context: Context, job: JobRow, fence: int, base: BaseRef) -> Spec:
    settings = context.settings
    valid = job.validation_file
    start = job.start_adapter
    return Spec(
        job_id=job.id,
        fence=fence,
        base=base,
        training_file=_file(context, job.training_file, "training_file"),
        validation_file=None if valid is None else _file(context, valid, "validation_file"),
        seed=job.seed,
        start_adapter=None if start is None else context.adapter_dir(start),
        method=method_of({"type": job.method}),
        hyperparameters=job.requested,
        save_every_s=settings.save_every_s,
        threads=settings.train_threads,
        processes=settings.train_processes,
        max_line_bytes=settings.max_line_bytes,
        device=settings.device,
        moderation=_moderation(settings),
    )


def _moderation(settings: Settings) -> Moderation | None:
    if settings.moderation == "off":
        return None
    return Moderation(
        settings.moderation,
        settings.moderation_fail_share,
        settings.moderation_url,
        settings.moderation_model,
    )


def _file(context: Context, file_id: str, param: str) -> FileRef:
    path: Path = context.blobs.path(file_id)
    if not path.is_file():
        raise JobError(
            f"The contents of {file_id} are missing on the server's disk.",
            code="server_error",
            param=param,
        )
    return FileRef(file_id, path)
