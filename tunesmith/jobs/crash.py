"""A process that ended without a result: what it died of, and whether to start it again."""

from __future__ import annotations

from pathlib import Path

from tunesmith.jobdir.layout import LOG_FILE
from tunesmith.jobdir.outcome import Failure
from tunesmith.jobs import messages
from tunesmith.jobs.context import Context
from tunesmith.jobs.finish import error_column
from tunesmith.jobs.follow import Run
from tunesmith.jobs.ledger import move, read_held
from tunesmith.jobs.states import Event, State, Status
from tunesmith.store.repo import events, jobs

LOG_TAIL_BYTES = 8192
MAX_CAUSE_CHARS = 500
SILENT_DEATH = "it was killed without a word, most often because the machine ran out of memory"


def crashed(context: Context, run: Run) -> State:
    """Notes the crash. A job still held afterwards is due for another launch, under a new fence.

    Raises LeaseLost.
    """
    now = context.now()
    cause = last_words(run.job_dir / LOG_FILE, run.log_start)
    limit = context.settings.max_attempts
    with context.db.write() as conn:
        job = read_held(conn, run.job_id, run.fence)
        after = move(conn, job, Event.CRASHED, now, max_attempts=limit)
        if after.held:
            note = messages.crashed(run.fence, cause, after.attempts, limit, now)
            fence = run.fence + 1
            jobs.update(conn, job.id, fence=fence, launch_fence=fence)
        elif after.status is Status.FAILED:
            error = _given_up(cause, after.attempts, job.last_step)
            jobs.update(conn, job.id, error=error_column(error))
            note = messages.failed(error.message, now)
        elif after.status is Status.CANCELLED:
            note = messages.cancelled(now)
        else:
            note = messages.paused(context.rng.token(8), now)
        events.append(conn, context.rng, job.id, [note])
    if after.held:
        run.fence = fence
        run.handle, run.launch_due = None, True
    return after


def last_words(log: Path, start: int = 0) -> str:
    """The cause as a trainer's log tells it from a byte on: the last line, if it is an error."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - LOG_TAIL_BYTES))
            tail = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return SILENT_DEATH
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    if not lines or "error" not in tail.lower():
        return SILENT_DEATH
    return lines[-1][:MAX_CAUSE_CHARS]


def _given_up(cause: str, attempts: int, step: int) -> Failure:
    reached = f"after step {step}" if step else "before the first step was done"
    return Failure(
        "server_error",
        f"The process working on the job ended unexpectedly {attempts} times in a row "
        f"{reached}: {cause}. If memory is short, use a smaller batch_size or shorter examples, "
        "then create the job again.",
    )
