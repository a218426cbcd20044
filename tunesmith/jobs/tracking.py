"""Passes the course of jobs on to trackers: one process for each, fed with the job's events.

Each worker does it, beside the deliveries. Trackers are leased; how far one has come is noted with
its answer, and a later process goes on from there. Whatever happens to a tracker, its job goes on:
the job's events tell of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tunesmith.config import Settings
from tunesmith.errors import Unavailable
from tunesmith.jobs import lease, messages
from tunesmith.jobs.context import Context
from tunesmith.jobs.feed import Feed, TrackingError
from tunesmith.jobs.outbox import pause_s
from tunesmith.jobs.states import TERMINAL, Status
from tunesmith.store.repo import events, jobs, keys, notices, trackers
from tunesmith.store.repo.events import EventRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.trackers import TrackerRow
from tunesmith.store.seal import unseal

log = logging.getLogger(__name__)

NUM_AT_ONCE = 8
LEASE_S = 30.0
REAP_EVERY_S = 1.0
BATCH = 500
MAX_FAILURES = 6
# What its environment does not tell it: all of ours, and keys that were not given for the job.
WITHHELD = ("TUNESMITH_", "OPENAI_", "WANDB_API_KEY")


def wandb_purpose(project_id: str) -> str:
    """What the project's key is sealed for."""
    return f"the Weights & Biases key of {project_id}"


def of_new_job(settings: Settings, job: JobRow) -> list[TrackerRow]:
    """Those its request asks for, then those that this server feeds with every job."""
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("wandb", given["wandb"]) for given in job.integrations or []
    ]
    if settings.mlflow_url is not None:
        wanted.append(("mlflow", {}))
    if settings.tensorboard:
        wanted.append(("tensorboard", {}))
    return [
        TrackerRow(job.id, number, kind, config) for number, (kind, config) in enumerate(wanted)
    ]


class Tracking:
    poll_s = 0.5

    def __init__(self, context: Context, stopping: Callable[[], bool]) -> None:
        """Runs under way when asked to stop are left, so that another worker goes on."""
        self._context = context
        self._stopping = stopping
        self._pepper = keys.load_pepper(context.settings.data_dir)
        self._owner = lease.owner_name(context.rng)
        self.tasks: set[asyncio.Task[None]] = set()
        self._reap_at_s = 0.0

    def tick(self) -> None:
        db = self._context.db
        time = db.lease_clock()
        if time.now_s >= self._reap_at_s:
            self._reap_at_s = time.now_s + REAP_EVERY_S
            self._reap()
        while len(self.tasks) < NUM_AT_ONCE:
            now = self._context.clock.now()
            with db.read() as conn:
                if not trackers.is_due(conn, time, now):
                    return
            with db.write() as conn:
                row = trackers.claim(conn, self._owner, time, now, LEASE_S)
            if row is None:
                return
            task = asyncio.get_running_loop().create_task(self._guarded(row))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _reap(self) -> None:
        db = self._context.db
        with db.read() as conn:
            held = trackers.holders(conn)
        for owner in lease.dead_owners(held, db.lease_clock().epoch):
            with db.write() as conn:
                trackers.release(conn, owner)

    async def _guarded(self, row: TrackerRow) -> None:
        keeper = asyncio.create_task(self._keep(row))
        try:
            state = await self._follow(row)
            self._update(row, state=state, lease_owner=None)
        except _LeaseLost:
            log.warning("%s of %s has another owner now", row.kind, row.job_id)
        except TrackingError as error:
            self._failed(row, error)
        except Unavailable as error:
            log.warning("%s", error.message)
        except Exception:
            log.exception("%s of %s ended unexpectedly", row.kind, row.job_id)
            self._failed(row, TrackingError("its process ended unexpectedly"))
        finally:
            keeper.cancel()

    async def _keep(self, row: TrackerRow) -> None:
        """Holds on to it while a slow tracker is waited for; its loss shows at the next update."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            time = self._context.db.lease_clock()
            with contextlib.suppress(_LeaseLost, Unavailable):
                self._update(row, lease_epoch=time.epoch, lease_until=time.now_s + LEASE_S)

    async def _follow(self, row: TrackerRow) -> str:
        """Feeds the tracker as long as there is something; the state it is in then."""
        job = self._job(row)
        if job.status in TERMINAL and row.sent_seq == 0 and not self._new_events(row, 0):
            return "done"
        seq = row.sent_seq
        async with self._process(row, job) as process:
            while not self._stopping():
                # In this order: an ended job has no events that are yet to come.
                job = self._job(row)
                found = self._new_events(row, seq)
                if found:
                    seq = await process.send(found)
                    self._update(row, sent_seq=seq, num_failures=0)
                elif job.status in TERMINAL:
                    await process.close(job.status)
                    return "done"
                elif job.status != Status.RUNNING:
                    break
                await asyncio.sleep(self.poll_s)
            # A tracker that does not end in time is killed; the next process goes on with its run.
            with contextlib.suppress(TrackingError):
                await process.close(None)
            return "open"

    @asynccontextmanager
    async def _process(self, row: TrackerRow, job: JobRow) -> AsyncIterator[Feed]:
        directory = self._context.job_dir(job.id) / "trackers" / f"{row.number}-{row.kind}"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "log.txt").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tunesmith.track"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                env={k: v for k, v in os.environ.items() if not k.startswith(WITHHELD)},
                start_new_session=True,
            )
        feed = Feed(process)
        try:
            opened = await feed.open(self._opening(row, job, directory))
            self._update(row, run_id=opened["run_id"])
            if row.run_id is None and opened["url"] is not None:
                self._note(row.job_id, messages.tracked(row, opened["url"], self._context.now()))
            yield feed
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _opening(self, row: TrackerRow, job: JobRow, directory: Path) -> dict[str, Any]:
        settings = self._context.settings
        url = {"wandb": settings.wandb_base_url, "mlflow": settings.mlflow_url}.get(row.kind)
        return {
            "kind": row.kind,
            "job_id": job.id,
            "project_id": job.project_id,
            "model": job.model,
            "directory": str(directory),
            "parameters": {
                "model": job.model,
                "method": job.method,
                "seed": job.seed,
                "training_file": job.training_file,
                "validation_file": job.validation_file,
                **job.hyperparameters,
            },
            "config": row.config,
            "run_id": row.run_id,
            "url": url,
            "secret": self._wandb_key(job.project_id) if row.kind == "wandb" else None,
            "offline": settings.wandb_offline,
        }

    def _wandb_key(self, project_id: str) -> str | None:
        with self._context.db.read() as conn:
            sealed = notices.get(conn, project_id).wandb_key
        if sealed is not None:
            return unseal(self._pepper, wandb_purpose(project_id), sealed)
        own = self._context.settings.wandb_api_key
        return None if own is None else own.get_secret_value()

    def _job(self, row: TrackerRow) -> JobRow:
        with self._context.db.read() as conn:
            job = jobs.get_any(conn, row.job_id)
        assert job is not None, "jobs are never deleted"
        return job

    def _new_events(self, row: TrackerRow, seq: int) -> list[EventRow]:
        with self._context.db.read() as conn:
            return events.after_seq(conn, row.job_id, seq, type="metrics")[:BATCH]

    def _update(self, row: TrackerRow, **values: Any) -> None:
        with self._context.db.write() as conn:
            if not trackers.update(conn, self._owner, row, **values):
                raise _LeaseLost

    def _failed(self, row: TrackerRow, error: TrackingError) -> None:
        """Tries again later, or gives up; the job's events tell of the first and the last time."""
        context = self._context
        with context.db.read() as conn:
            num_failures = trackers.num_failures(conn, row) + 1
        given_up = error.final or num_failures >= MAX_FAILURES
        log.warning("%s of %s: %s", row.kind, row.job_id, error.message)
        with contextlib.suppress(_LeaseLost):
            self._update(
                row,
                state="failed" if given_up else "open",
                num_failures=num_failures,
                due_at=context.clock.now()
                + pause_s(num_failures, context.settings.delivery_retry_s, context.rng),
                lease_owner=None,
            )
            if given_up or num_failures == 1:
                note = messages.not_tracked(row, error.message, given_up, context.now())
                self._note(row.job_id, note)

    def _note(self, job_id: str, note: events.NewEvent) -> None:
        with self._context.db.write() as conn:
            events.append(conn, self._context.rng, job_id, [note])


class _LeaseLost(Exception):
    pass
