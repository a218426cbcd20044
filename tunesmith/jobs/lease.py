"""Who may work on a job: claiming it, keeping it, and taking it over from the dead.

A lease runs out by the database's lease clock. On one machine its holder's death is seen at once:
the owner's name says which process it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa

from tunesmith.ids import Rng
from tunesmith.jobdir.process import start_ticks
from tunesmith.jobs import messages
from tunesmith.jobs.context import Context
from tunesmith.jobs.ledger import LeaseLost, move
from tunesmith.jobs.states import Event, Status
from tunesmith.store.repo import events, jobs
from tunesmith.store.repo.jobs import JobRow


def owner_name(rng: Rng) -> str:
    """Names this process: pid, start time, pid namespace, and a random part."""
    pid = os.getpid()
    return f"{pid}.{start_ticks(pid)}.{_pid_namespace()}.{rng.token(8)}"


def claim(context: Context, statuses: tuple[str, ...], owner: str) -> tuple[JobRow, bool] | None:
    """The next job in one of the states, now held by the owner, and whether this starts its work
    (else someone had started it before). A queued job is running by then.
    """
    time = context.db.lease_clock()
    with context.db.read() as conn:
        if not jobs.claimable(conn, statuses, time):
            return None
    with context.db.write() as conn:
        claimed = jobs.claim(conn, statuses, owner, time, context.settings.lease_s)
        if claimed is None:
            return None
        fresh = claimed.status == Status.QUEUED or claimed.launch_fence == 0
        columns = {"launch_fence": claimed.fence} if fresh else {}
        after = move(conn, claimed, Event.CLAIMED, context.now(), **columns)
        if after.status is Status.RUNNING:
            note = messages.started(context.now())
            events.append(conn, context.rng, claimed.id, [note])
        return _reread(conn, claimed), fresh


def renew(context: Context, job_id: str, fence: int) -> None:
    """Holds on to a job for another lease. Raises LeaseLost."""
    time = context.db.lease_clock()
    until = time.now_s + context.settings.lease_s
    with context.db.write() as conn:
        renewed = jobs.update(
            conn, job_id, at_fence=fence, lease_epoch=time.epoch, lease_until=until
        )
        if not renewed:
            raise LeaseLost(job_id)


def reap(context: Context) -> int:
    """Ends the leases of dead processes of this machine; how many."""
    epoch = context.db.lease_clock().epoch
    with context.db.read() as conn:
        held = [job for job in jobs.leased(conn) if job.lease_epoch == epoch and job.lease_until]
    owners = dead_owners(((job.lease_owner or "", epoch) for job in held), epoch)
    dead = [job for job in held if job.lease_owner in owners]
    for job in dead:
        with context.db.write() as conn:
            jobs.update(conn, job.id, at_fence=job.fence, lease_until=0.0)
    return len(dead)


def dead_owners(held: Iterable[tuple[str, str]], epoch: str) -> list[str]:
    """Of (owner, epoch) pairs, the processes of this machine that are gone."""
    return [owner for owner, when in held if when == epoch and _is_dead(owner)]


def _is_dead(owner: str) -> bool:
    pid, ticks, namespace, _ = owner.split(".")
    # In another namespace the number means another process, or none that can be seen from here.
    return namespace == str(_pid_namespace()) and str(start_ticks(int(pid))) != ticks


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _reread(conn: sa.Connection, job: JobRow) -> JobRow:
    fresh = jobs.get_any(conn, job.id)
    assert fresh is not None
    return fresh
