"""Carries a trainer's events from its file into the database, each exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.jobdir.events import EventLine, read_events
from tunesmith.jobdir.layout import EVENTS_FILE
from tunesmith.jobdir.process import Phase, started_at
from tunesmith.jobs import costs
from tunesmith.jobs.context import Context
from tunesmith.jobs.executor import Handle
from tunesmith.jobs.ledger import LeaseLost
from tunesmith.store.repo import events, jobs
from tunesmith.store.repo.events import NewEvent


@dataclass
class Run:
    """A job in the hands of this worker."""

    job_id: str
    fence: int
    min_fence: int
    """Files in the directory with a lower fence are of an earlier round."""
    phase: Phase
    job_dir: Path
    offset: int
    last_step: int
    total_steps: int | None
    progress_at_s: float
    """When something was last heard of it, on the lease clock; so are the times below."""
    renew_at_s: float
    taken_at: float = 0.0
    """When this round of work began, seconds since 1970."""
    handle: Handle | None = None
    launch_due: bool = False
    """Whether a process is yet to be launched."""
    log_start: int = 0
    """Where the process's part of trainer.log begins, bytes."""
    control: str | None = None
    """What it was told to do."""
    control_at_s: float = 0.0
    pace: tuple[int, float] | None = None
    """(step, time) since which its speed is measured."""
    num_faults: int = 0
    retry_at_s: float = 0.0


def transfer(context: Context, run: Run) -> int:
    """Moves all complete lines of events.jsonl into the events table; how many were read.

    Events and the new offset are one transaction, and keys are unique, so neither a crash in
    between nor a trainer that repeats steps after one can lose or double an event. Raises
    LeaseLost.
    """
    num_read = 0
    while True:
        lines, offset = read_events(run.job_dir / EVENTS_FILE, run.offset)
        if not lines and offset == run.offset:
            return num_read
        num_read += len(lines)
        _store(context, run, lines, offset)


def _store(context: Context, run: Run, lines: list[EventLine], offset: int) -> None:
    last_step, total_steps = run.last_step, run.total_steps
    for line in lines:
        if line.type == "metrics":
            last_step = max(last_step, line.data["step"])
            total_steps = line.data["total_steps"]
    columns: dict[str, Any] = {
        "events_offset": offset,
        "last_step": last_step,
        "total_steps": total_steps,
        "estimated_finish": _estimate(context, run, last_step, total_steps),
    }
    finish, round_s = columns["estimated_finish"], None
    if finish is not None and costs.is_time_priced(context.settings):
        round_s = finish - started_at(run.job_dir)
    with context.db.write() as conn:
        if not jobs.update(conn, run.job_id, at_fence=run.fence, **columns):
            raise LeaseLost(run.job_id)
        if round_s is not None:
            costs.foresee(conn, context.settings, run.job_id, round_s)
        events.append(conn, context.rng, run.job_id, [NewEvent(**vars(line)) for line in lines])
    run.offset, run.last_step, run.total_steps = offset, last_step, total_steps
    run.progress_at_s = context.ticking_s()


def _estimate(context: Context, run: Run, step: int, total_steps: int | None) -> int | None:
    """When the last step will be done, at the speed seen since the launch; None if unknown."""
    now_s = context.ticking_s()
    if run.pace is None:
        if step > 0:
            run.pace = (step, now_s)
        return None
    first_step, since_s = run.pace
    if total_steps is None or step <= first_step:
        return None
    left_s = (total_steps - step) * (now_s - since_s) / (step - first_step)
    return int(context.clock.now() + left_s)
