"""Ends a round of work on a job: what it made becomes visible in one transaction, or not at all.

Files first (adapters by content, the result file under a fresh id), rows last. A crash anywhere
before the transaction leaves only files that nothing refers to, and finishing again is safe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tunesmith.ids import CHECKPOINT, FILE, new_id
from tunesmith.jobs import messages, names
from tunesmith.jobs.context import Context
from tunesmith.jobs.follow import Run
from tunesmith.jobs.ledger import move, read_held
from tunesmith.jobs.publish import WEIGHTS, publish
from tunesmith.jobs.states import Event, State, Status
from tunesmith.store.repo import checkpoints, events, files, jobs, models
from tunesmith.store.repo.checkpoints import CheckpointRow
from tunesmith.store.repo.events import EventRow, NewEvent
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.models import Kind, ModelRow
from tunesmith.train.spec import CheckpointEntry, Failure, Result, Validation

RESULT_FILENAME = "step_metrics.csv"
CSV_COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}

_EVENTS = {
    "succeeded": Event.SUCCEEDED,
    "failed": Event.FAILED,
    "paused": Event.PAUSED,
    "cancelled": Event.CANCELLED,
    "interrupted": Event.INTERRUPTED,
}


def finish_validation(context: Context, run: Run, found: Validation) -> State:
    """Queues a job whose files are good, fails it where they are not. Raises LeaseLost."""
    if found.error is not None:
        return fail(context, run, found.error)
    now = context.now()
    with context.db.write() as conn:
        job = read_held(conn, run.job_id, run.fence)
        after = move(conn, job, Event.VALIDATED, now, **_resolved(job, found))
        if after.status is Status.CANCELLED:
            notes = [messages.cancelled(now)]
        else:
            warned = enumerate(found.warnings, start=1)
            notes = [messages.validation_warning(number, text, now) for number, text in warned]
            notes.append(messages.validated(now))
        events.append(conn, context.rng, job.id, notes)
    return after


def _resolved(job: JobRow, found: Validation) -> dict[str, Any]:
    shown = {
        name: found.hyperparameters.get(name, job.hyperparameters[name])
        for name in job.hyperparameters
    }
    return {"hyperparameters": shown, "total_steps": found.total_steps}


def finish_training(context: Context, run: Run, result: Result) -> State:
    """Publishes what a trainer made and moves the job on. All its events are stored already.

    Raises LeaseLost, and JobError for a result that cannot be published.
    """
    if result.status == "failed":
        error = result.error or Failure("server_error", "Training failed without a reason.")
        return fail(context, run, error)
    publish(context, run.job_dir, result.checkpoints, run.fence)
    result_file = _result_file(context, run.job_id) if result.status == "succeeded" else None
    now = context.now()
    with context.db.write() as conn:
        job = read_held(conn, run.job_id, run.fence)
        after = move(conn, job, _EVENTS[result.status], now)
        if after.status is Status.QUEUED:
            notes = [messages.interrupted(context.rng.token(8), now)]
        else:
            notes = _publish_rows(context, conn, job, run.job_dir, result, after, now)
        if after.status is Status.SUCCEEDED and result_file is not None:
            files.insert(conn, result_file)
            jobs.update(conn, job.id, result_file=result_file.id)
        if after.status in (Status.SUCCEEDED, Status.CANCELLED):
            jobs.update(conn, job.id, trained_tokens=result.trained_tokens)
        events.append(conn, context.rng, job.id, notes)
    return after


def fail(context: Context, run: Run, error: Failure) -> State:
    """Ends the job as failed, for a reason that no retry would change. Raises LeaseLost."""
    now = context.now()
    with context.db.write() as conn:
        job = read_held(conn, run.job_id, run.fence)
        after = move(conn, job, Event.FAILED, now, error=error_column(error))
        events.append(conn, context.rng, job.id, [messages.failed(error.message, now)])
    return after


def error_column(error: Failure) -> dict[str, Any]:
    """As the job object shows it."""
    return {"code": error.code, "message": error.message, "param": error.param}


def _publish_rows(
    context: Context,
    conn: sa.Connection,
    job: JobRow,
    job_dir: Path,
    result: Result,
    after: State,
    now: int,
) -> list[NewEvent]:
    """Names the checkpoints; the messages about them, in the contract's order."""
    organization = job.organization_id.removeprefix("org-")
    known = checkpoints.by_step(conn, job.id)
    final = result.checkpoints[-1] if after.status is Status.SUCCEEDED else None
    notes = []
    for entry in result.checkpoints:
        if entry is final:
            continue
        if entry.step in known:
            name = known[entry.step].model_name
        else:
            name = names.checkpoint_name(
                job.model_label, organization, job.suffix, entry.step, context.rng
            )
            _add(context, conn, job, job_dir, entry, name, "checkpoint", now)
        notes.append(messages.checkpoint(entry.step, name, now))
    if final is not None:
        name = names.final_name(job.model_label, organization, job.suffix, context.rng)
        if final.step in known:
            checkpoints.drop(conn, job.id, final.step)
        _add(context, conn, job, job_dir, final, name, "tuned", now)
        jobs.update(conn, job.id, fine_tuned_model=name)
        notes += [messages.model_created(name, now), messages.succeeded(now)]
    elif after.status is Status.PAUSED:
        notes.append(messages.paused(context.rng.token(8), now))
    elif after.status is Status.CANCELLED:
        notes.append(messages.cancelled(now))
    return notes


def _add(
    context: Context,
    conn: sa.Connection,
    job: JobRow,
    job_dir: Path,
    entry: CheckpointEntry,
    name: str,
    kind: Kind,
    now: int,
) -> None:
    """One checkpoint and the model it is served as.

    A sweep takes unused adapters away inside a write transaction, as this is one: an adapter seen
    here stays.
    """
    if not context.adapter_dir(entry.sha256).is_dir():
        raise FileNotFoundError(f"adapter {entry.sha256} was swept before it was named")
    written_at = int((job_dir / entry.path / WEIGHTS).stat().st_mtime)
    checkpoints.insert(
        conn,
        CheckpointRow(
            id=new_id(CHECKPOINT, context.rng),
            job_id=job.id,
            step=entry.step,
            model_name=name,
            adapter_sha256=entry.sha256,
            metrics={"step": entry.step, **entry.metrics},
            created_at=min(max(written_at, job.created_at), now),
        ),
    )
    models.insert(
        conn,
        ModelRow(
            name=name,
            kind=kind,
            label=job.model_label,
            base=job.base,
            adapter_sha256=entry.sha256,
            job_id=job.id,
            created_at=now,
            owned_by=job.organization_id,
        ),
    )


def _result_file(context: Context, job_id: str) -> FileRow:
    """Writes the metrics of all steps as a blob; its row is for the transaction that follows."""
    with context.db.read() as conn:
        metrics = events.after_seq(conn, job_id, type="metrics")
    file_id = new_id(FILE, context.rng)
    writer = context.blobs.writer(file_id)
    try:
        writer.write(metrics_csv(metrics).encode())
        num_bytes, sha256 = writer.finish()
    except BaseException:
        writer.abort()
        raise
    return FileRow(
        id=file_id,
        filename=RESULT_FILENAME,
        num_bytes=num_bytes,
        purpose=files.FINE_TUNE_RESULTS,
        sha256=sha256,
        created_at=context.now(),
    )


def metrics_csv(metrics: Sequence[EventRow]) -> str:
    """One row a step, empty cells where nothing was measured."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    for event in sorted(metrics, key=lambda event: event.data.get("step", 0)):
        table.writerow([event.data.get(field, "") for field in CSV_COLUMNS.values()])
    return text.getvalue()
