"""Ends a round of work on a job: what it made becomes visible in one transaction, or not at all.

Files first (weights by content, the result file under a fresh id), rows last. A crash anywhere
before the transaction leaves only files that nothing refers to, and finishing again is safe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tunesmith.ids import CHECKPOINT, FILE, new_id
from tunesmith.jobdir.layout import RESULT_FILE
from tunesmith.jobdir.outcome import CheckpointEntry, Failure, Result, Validation
from tunesmith.jobdir.process import started_at
from tunesmith.jobs import costs, messages, names
from tunesmith.jobs.context import Context
from tunesmith.jobs.follow import Run
from tunesmith.jobs.ledger import move, read_held
from tunesmith.jobs.publish import Published, publish
from tunesmith.jobs.states import Event, State, Status
from tunesmith.store.repo import bases, checkpoints, events, files, job_costs, jobs, models
from tunesmith.store.repo.checkpoints import CheckpointRow
from tunesmith.store.repo.events import EventRow, NewEvent
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.models import Kind, ModelRow

RESULT_FILENAME = "step_metrics.csv"
CSV_COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
# Of preferences, after the published ones.
REWARD_COLUMNS = {
    f"{phase}_reward_{name}": f"{phase}_reward_{name}"
    for phase in ("train", "valid")
    for name in ("chosen", "rejected", "margin", "accuracy")
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
        resolved = _resolved(job, found)
        num_trained = found.num_tokens * int(resolved["hyperparameters"]["n_epochs"])
        cost = costs.expected(conn, context.settings, job, num_trained)
        problem = costs.beyond_budget(conn, context.settings, job, cost, now)
        if problem is not None:
            return _failed(context, conn, job, problem, now)
        after = move(conn, job, Event.VALIDATED, now, **resolved)
        job_costs.put(conn, cost)
        if after.status is Status.CANCELLED:
            notes = [messages.cancelled(now)]
        else:
            warned = enumerate(found.warnings, start=1)
            notes = [messages.validation_warning(number, text, now) for number, text in warned]
            if found.screened is not None and found.screened.num_flagged:
                notes.append(messages.moderated(job.id, found.screened, now))
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
    published = publish(context, run.job_dir, result.checkpoints, run.fence)
    content = _metrics_blob(context, run.job_id) if result.status == "succeeded" else None
    machine_s = _machine_s(run.job_dir)
    now = context.now()
    with context.db.write() as conn:
        job = read_held(conn, run.job_id, run.fence)
        after = move(conn, job, _EVENTS[result.status], now)
        if after.status is Status.QUEUED:
            notes = [messages.interrupted(context.rng.token(8), now)]
        else:
            notes = _Publication(context, conn, job, run.job_dir, published, now).rows(
                result, after
            )
        if after.status is Status.SUCCEEDED and content is not None:
            files.insert(conn, content.row(job, now))
            jobs.update(conn, job.id, result_file=content.file_id)
        if after.status in (Status.SUCCEEDED, Status.CANCELLED):
            jobs.update(conn, job.id, trained_tokens=result.trained_tokens)
        costs.account(
            conn,
            context.settings,
            job,
            trained_tokens=result.trained_tokens,
            machine_s=machine_s,
            billed=after.status is not Status.QUEUED,
            now=now,
        )
        events.append(conn, context.rng, job.id, notes)
    return after


def fail(context: Context, run: Run, error: Failure) -> State:
    """Ends the job as failed, for a reason that no retry would change. Raises LeaseLost."""
    now = context.now()
    with context.db.write() as conn:
        job = read_held(conn, run.job_id, run.fence)
        return _failed(context, conn, job, error, now)


def _failed(context: Context, conn: sa.Connection, job: JobRow, error: Failure, now: int) -> State:
    after = move(conn, job, Event.FAILED, now, error=error_column(error))
    events.append(conn, context.rng, job.id, [messages.failed(error.message, now)])
    return after


def _machine_s(job_dir: Path) -> float:
    """How long the process worked whose result has come; usage tells it without a price, too."""
    return max(0.0, (job_dir / RESULT_FILE).stat().st_mtime - started_at(job_dir))


def error_column(error: Failure) -> dict[str, Any]:
    """As the job object shows it."""
    return {"code": error.code, "message": error.message, "param": error.param}


@dataclass(frozen=True)
class _Publication:
    """The rows of what a round of training leaves behind, in one open transaction."""

    context: Context
    conn: sa.Connection
    job: JobRow
    job_dir: Path
    published: dict[int, Published]
    """By step."""
    now: int

    def rows(self, result: Result, after: State) -> list[NewEvent]:
        """Names the checkpoints; the messages about them, in the contract's order."""
        final = result.checkpoints[-1] if after.status is Status.SUCCEEDED else None
        known = checkpoints.by_step(self.conn, self.job.id)
        notes = [
            messages.checkpoint(entry.step, self._intermediate(entry, known), self.now)
            for entry in result.checkpoints
            if entry is not final
        ]
        if final is not None:
            name = self._final(final, known)
            return [
                *notes,
                messages.model_created(name, self.now),
                messages.succeeded(self.now),
            ]
        if after.status is Status.PAUSED:
            return [*notes, messages.paused(self.context.rng.token(8), self.now)]
        return [*notes, messages.cancelled(self.now)]

    def _intermediate(self, entry: CheckpointEntry, known: dict[int, CheckpointRow]) -> str:
        if entry.step in known:
            return known[entry.step].model_name
        name = f"{self._fresh_name()}:ckpt-step-{entry.step}"
        self._add(entry, name, "checkpoint")
        return name

    def _final(self, entry: CheckpointEntry, known: dict[int, CheckpointRow]) -> str:
        if entry.step in known:
            # Paused after the last step: that name stays, the list shows the final one.
            checkpoints.drop(self.conn, self.job.id, entry.step)
        name = self._fresh_name()
        self._add(entry, name, "tuned")
        jobs.update(self.conn, self.job.id, fine_tuned_model=name)
        return name

    def _fresh_name(self) -> str:
        job = self.job
        organization = job.organization_id.removeprefix("org-")
        return names.model_name(job.model_label, organization, job.suffix, self.context.rng)

    def _add(self, entry: CheckpointEntry, name: str, kind: Kind) -> None:
        """One checkpoint and the model it is served as.

        A sweep takes unused weights away inside a write transaction, as this is one: what is seen
        here stays.
        """
        published = self.published[entry.step]
        if not published.directory.is_dir():
            raise FileNotFoundError(f"{published.directory} was swept before it was named")
        if published.base is not None:
            bases.insert(self.conn, published.base)
        written_at = int((self.job_dir / entry.path).stat().st_mtime)
        row = CheckpointRow(
            id=new_id(CHECKPOINT, self.context.rng),
            job_id=self.job.id,
            step=entry.step,
            model_name=name,
            metrics={"step": entry.step, **entry.metrics},
            created_at=min(max(written_at, self.job.created_at), self.now),
        )
        checkpoints.insert(self.conn, row)
        model = ModelRow(
            name=name,
            project_id=self.job.project_id,
            kind=kind,
            label=self.job.model_label,
            base=published.base.name if published.base else self.job.base,
            adapter_sha256=published.adapter_sha256,
            job_id=self.job.id,
            created_at=self.now,
            owned_by=self.job.organization_id,
        )
        models.insert(self.conn, model)


@dataclass(frozen=True)
class _MetricsBlob:
    """The bytes of a result file; its row is for the transaction that follows."""

    file_id: str
    num_bytes: int
    sha256: str

    def row(self, job: JobRow, now: int) -> FileRow:
        return FileRow(
            id=self.file_id,
            project_id=job.project_id,
            filename=RESULT_FILENAME,
            num_bytes=self.num_bytes,
            purpose=files.FINE_TUNE_RESULTS,
            sha256=self.sha256,
            created_at=now,
        )


def _metrics_blob(context: Context, job_id: str) -> _MetricsBlob:
    """Writes the metrics of all steps as a blob."""
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
    return _MetricsBlob(file_id, num_bytes, sha256)


def metrics_csv(metrics: Sequence[EventRow]) -> str:
    """One row a step, empty cells where nothing was measured."""
    columns = dict(CSV_COLUMNS)
    if any("train_reward_margin" in event.data for event in metrics):
        columns |= REWARD_COLUMNS
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for event in sorted(metrics, key=lambda event: event.data.get("step", 0)):
        table.writerow([event.data.get(field, "") for field in columns.values()])
    return text.getvalue()
