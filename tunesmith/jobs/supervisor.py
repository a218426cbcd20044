"""The worker's loop: claim -> launch -> follow -> finish, for a few jobs at a time.

All that must survive is in the database and in the jobs' directories: a worker may be killed at
any instant, and whoever claims its jobs next finds their processes, or their results.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import cast

from tunesmith.errors import JobError, Unavailable
from tunesmith.jobdir.control import Control, write_control
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import RESULT_FILE, VALIDATION_FILE
from tunesmith.jobdir.outcome import Failure, Result, Validation
from tunesmith.jobdir.process import Phase
from tunesmith.jobdir.records import RecordError
from tunesmith.jobs import lease, messages
from tunesmith.jobs.context import Context
from tunesmith.jobs.crash import crashed
from tunesmith.jobs.executor import Executor, LaunchError
from tunesmith.jobs.finish import fail, finish_training, finish_validation
from tunesmith.jobs.follow import Run, transfer
from tunesmith.jobs.launch import launch, was_launched
from tunesmith.jobs.ledger import LeaseLost, move, read_held
from tunesmith.jobs.states import Event, Status
from tunesmith.jobs.sweep import sweep
from tunesmith.store.repo import events, jobs
from tunesmith.store.repo.jobs import JobRow

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.1
BUSY_POLL_S = 0.05
REAP_EVERY_S = 1.0
SWEEP_EVERY_S = 60.0
# A cancelled trainer that has not stopped by itself is then killed.
CANCEL_GRACE_S = 30.0
# What is left of a drain after trainers were killed.
DRAIN_MARGIN_S = 5.0
STALLED_AFTER_S = 600.0
VALIDATE_SLOTS = 1
# Unexpected errors in handling one job, in a row, before it is given up.
MAX_FAULTS = 8


class Supervisor:
    def __init__(self, context: Context, executor: Executor) -> None:
        self._context = context
        self._executor = executor
        self._owner = lease.owner_name(context.rng)
        self._runs: dict[str, Run] = {}
        self._draining = False
        self._reap_at_s = 0.0
        self._sweep_at_s = context.ticking_s() + SWEEP_EVERY_S

    @property
    def runs(self) -> list[Run]:
        """The jobs in its hands."""
        return list(self._runs.values())

    def run(self, stopping: Callable[[], bool]) -> None:
        """Works until asked to stop, then drains."""
        while not stopping():
            self._guarded_tick()
            time.sleep(BUSY_POLL_S if self._runs else IDLE_POLL_S)
        self.drain()

    def drain(self) -> None:
        """Has every trainer save its work and hands all jobs back.

        Trainers that do not stop within settings.drain_s are killed; their jobs go on from their
        newest checkpoint.
        """
        self._draining = True
        self._stop_processes(force=False)
        kill_at_s = self._context.ticking_s() + self._context.settings.drain_s
        killed = False
        while self._runs and self._context.ticking_s() < kill_at_s + DRAIN_MARGIN_S:
            self._guarded_tick()
            if not killed and self._context.ticking_s() > kill_at_s:
                self._stop_processes(force=True)
                killed = True
            if self._runs:
                time.sleep(BUSY_POLL_S)
        self._executor.close()

    def _stop_processes(self, *, force: bool) -> None:
        for run in self.runs:
            if run.handle is not None:
                self._executor.cancel(run.handle, force=force or run.phase == "validate")

    def tick(self) -> None:
        """One look at everything."""
        now_s = self._context.ticking_s()
        if now_s >= self._reap_at_s:
            self._reap_at_s = now_s + REAP_EVERY_S
            lease.reap(self._context)
        if now_s >= self._sweep_at_s:
            self._sweep_at_s = now_s + SWEEP_EVERY_S
            sweep(self._context)
        self._follow_all()
        # A job whose files were just found good starts to train in the same tick.
        self._claim_all()

    def _guarded_tick(self) -> None:
        try:
            self.tick()
        except Unavailable as error:
            log.warning("%s", error.message)
        except Exception:
            log.exception("the worker's loop met an unexpected error; it goes on")

    # --- claiming ---

    def _claim_all(self) -> None:
        if self._draining:
            return
        ready = self._executor.ready()
        train_slots = self._context.settings.train_slots
        phases: list[tuple[Phase, int]] = [("validate", VALIDATE_SLOTS), ("train", train_slots)]
        for phase, slots in phases:
            while sum(run.phase == phase for run in self._runs.values()) < slots:
                claimed = lease.claim(self._context, _statuses(phase, ready), self._owner)
                if claimed is None:
                    break
                self._take(*claimed)

    def _take(self, job: JobRow, fresh: bool) -> None:
        """Adds a claimed job: to be launched, or with the process or result it is found with."""
        now_s = self._context.ticking_s()
        run = Run(
            job_id=job.id,
            fence=job.fence,
            min_fence=job.launch_fence,
            phase="validate" if job.status == Status.VALIDATING else "train",
            job_dir=self._context.job_dir(job.id),
            offset=job.events_offset,
            last_step=job.last_step,
            total_steps=job.total_steps,
            progress_at_s=now_s,
            renew_at_s=now_s + self._context.settings.lease_s / 3,
            launch_due=fresh or not was_launched(self._context, job),
            taken_at=self._context.clock.now(),
        )
        if not run.launch_due:
            run.handle = self._executor.adopt(run.phase, run.job_dir, run.min_fence)
            log.info("took over %s (%s)", job.id, "alive" if run.handle else "no process")
        self._runs[job.id] = run
        self._follow_guarded(run, job)

    # --- following ---

    def _follow_all(self) -> None:
        if not self._runs:
            return
        with self._context.db.read() as conn:
            rows = jobs.many(conn, list(self._runs))
        for run in self.runs:
            self._follow_guarded(run, rows.get(run.job_id))

    def _follow_guarded(self, run: Run, job: JobRow | None) -> None:
        """Keeps trouble with one job away from the others."""
        if self._context.ticking_s() < run.retry_at_s:
            return
        try:
            if job is None or job.fence != run.fence:
                raise LeaseLost(run.job_id)
            self._follow(run, job)
            run.num_faults = 0
        except LeaseLost as lost:
            log.warning("%s", lost.message)
            self._let_go(run)
        except JobError as error:
            self._fail(run, Failure(error.code, error.message, error.param))
        except RecordError as error:
            self._fail(run, Failure("server_error", f"The job's files are damaged: {error}"))
        except (Unavailable, LaunchError, OSError) as error:
            log.warning("%s: %s", run.job_id, error)
            run.retry_at_s = self._context.ticking_s() + 1.0
        except Exception:
            self._count_fault(run)

    def _follow(self, run: Run, job: JobRow) -> None:
        self._renew(run)
        if run.launch_due:
            self._launch_or_end(run, job)
            return
        self._pass_on_control(run, job)
        # In this order: what a dead process wrote is complete, and its result is its last word.
        alive = run.handle is not None and self._executor.poll(run.handle)
        if run.phase == "validate":
            self._end_validation(run, alive)
        else:
            self._end_training(run, alive)

    def _launch_or_end(self, run: Run, job: JobRow) -> None:
        if job.control is not None or self._draining:
            self._hand_back(run)
        elif self._executor.ready():
            launch(self._context, self._executor, run)

    def _end_validation(self, run: Run, alive: bool) -> None:
        found = read_record(Validation, run.job_dir / VALIDATION_FILE)
        if found is not None and found.fence >= run.min_fence:
            finish_validation(self._context, run, found)
            self._let_go(run)
        elif not alive:
            self._died(run)

    def _end_training(self, run: Run, alive: bool) -> None:
        result = read_record(Result, run.job_dir / RESULT_FILE)
        num_events = transfer(self._context, run)
        if result is not None and result.fence >= run.min_fence:
            after = finish_training(self._context, run, result)
            log.info("%s is %s after step %d", run.job_id, after.status, result.step)
            self._let_go(run)
        elif not alive:
            self._died(run)
        elif num_events == 0:
            self._watch_silence(run)

    def _died(self, run: Run) -> None:
        if self._draining:
            self._hand_back(run)
            return
        after = crashed(self._context, run)
        log.warning("the process of %s died; the job is %s", run.job_id, after.status)
        if not after.held:
            self._let_go(run)

    def _hand_back(self, run: Run) -> None:
        """Lets go of a job whose process does not run; a request it carries comes true now."""
        now = self._context.now()
        with self._context.db.write() as conn:
            job = read_held(conn, run.job_id, run.fence)
            after = move(conn, job, Event.INTERRUPTED, now, launch_fence=0)
            if after.status is Status.CANCELLED:
                note = messages.cancelled(now)
            elif after.status is Status.PAUSED:
                note = messages.paused(self._context.rng.token(8), now)
            elif job.status == Status.RUNNING:
                note = messages.interrupted(self._context.rng.token(8), now)
            else:
                note = None
            events.append(conn, self._context.rng, job.id, [note] if note else [])
        self._let_go(run)

    def _let_go(self, run: Run) -> None:
        del self._runs[run.job_id]
        work: dict[str, str | int | float] = {"tunesmith.step": run.last_step}
        self._context.tracing.work(run.job_id, run.phase, run.taken_at, work)

    # --- requests, leases, trouble ---

    def _pass_on_control(self, run: Run, job: JobRow) -> None:
        now_s = self._context.ticking_s()
        if job.control is None or run.handle is None:
            return
        if job.control != run.control:
            run.control, run.control_at_s = job.control, now_s
            if run.phase == "validate":
                self._executor.cancel(run.handle, force=True)
            else:
                write_control(run.job_dir, cast("Control", job.control))
        elif job.control == "cancel" and now_s > run.control_at_s + CANCEL_GRACE_S:
            self._executor.cancel(run.handle, force=True)

    def _renew(self, run: Run) -> None:
        now_s = self._context.ticking_s()
        if now_s >= run.renew_at_s:
            lease.renew(self._context, run.job_id, run.fence)
            run.renew_at_s = now_s + self._context.settings.lease_s / 3

    def _watch_silence(self, run: Run) -> None:
        silent_s = self._context.ticking_s() - run.progress_at_s
        if silent_s < STALLED_AFTER_S:
            return
        run.progress_at_s = self._context.ticking_s()
        log.warning("%s: no step for %.0f s; its process is alive", run.job_id, silent_s)
        with self._context.db.write() as conn:
            read_held(conn, run.job_id, run.fence)
            note = messages.stalled(run.last_step, silent_s, self._context.now())
            events.append(conn, self._context.rng, run.job_id, [note])

    def _count_fault(self, run: Run) -> None:
        run.num_faults += 1
        log.exception("%s: unexpected error %d of %d", run.job_id, run.num_faults, MAX_FAULTS)
        if run.num_faults >= MAX_FAULTS:
            text = "The server met an unexpected error with this job; its log has the details."
            self._fail(run, Failure("server_error", text))
            return
        run.retry_at_s = self._context.ticking_s() + min(0.1 * 2**run.num_faults, 10.0)

    def _fail(self, run: Run, error: Failure) -> None:
        """Ends a job that cannot go on; its process must not either."""
        log.error("%s failed: %s", run.job_id, error.message)
        if run.handle is not None:
            self._executor.cancel(run.handle, force=True)
        try:
            fail(self._context, run, error)
        except LeaseLost as lost:
            log.warning("%s", lost.message)
        except Unavailable as unavailable:
            log.warning("%s: %s", run.job_id, unavailable.message)
            run.retry_at_s = self._context.ticking_s() + 1.0
            return
        self._let_go(run)


def _statuses(phase: str, ready: bool) -> tuple[str, ...]:
    """What to claim; without the means to launch only what may have its process already."""
    if phase == "validate":
        return (Status.VALIDATING,) if ready else ()
    return (Status.RUNNING, Status.QUEUED) if ready else (Status.RUNNING,)
