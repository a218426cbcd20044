"""Claims: never two holders, fences grow, the dead lose their leases at once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from tests.unit.jobs.world import World
from tunesmith.jobs import lease
from tunesmith.jobs.ledger import LeaseLost
from tunesmith.store.db import open_database
from tunesmith.store.repo import jobs

NUM_JOBS = 60


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.db.close()


def _claim_all(data_dir: Path, owner: str, out: Queue[list[str]]) -> None:
    db = open_database(data_dir)
    claimed = []
    while True:
        with db.write() as conn:
            job = jobs.claim(conn, ("validating_files",), owner, db.lease_clock(), 60)
        if job is None:
            break
        claimed.append(job.id)
    out.put(claimed)
    db.close()


def test_processes_never_claim_the_same_job(world: World) -> None:
    made = [world.create().id for _ in range(NUM_JOBS)]
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    children = [
        context.Process(target=_claim_all, args=(world.settings.data_dir, f"w{number}", out))
        for number in range(4)
    ]
    for child in children:
        child.start()
    claimed = [job_id for _ in children for job_id in out.get(timeout=60)]
    for child in children:
        child.join()
    assert sorted(claimed) == sorted(made)


def test_a_claim_raises_the_fence_and_the_old_holder_cannot_renew(world: World) -> None:
    job = world.create()
    first = lease.claim(world.context, ("validating_files",), lease.owner_name(world.rng))
    assert first is not None
    assert (first[0].id, first[0].fence, first[1]) == (job.id, 1, True)
    assert lease.claim(world.context, ("validating_files",), "other") is None
    world.ticking.now_s += world.settings.lease_s - 1
    lease.renew(world.context, job.id, 1)
    world.ticking.now_s += world.settings.lease_s - 1
    assert lease.claim(world.context, ("validating_files",), "other") is None
    world.ticking.now_s += 2
    second = lease.claim(world.context, ("validating_files",), lease.owner_name(world.rng))
    assert second is not None
    assert (second[0].fence, second[1]) == (2, False)
    with pytest.raises(LeaseLost):
        lease.renew(world.context, job.id, 1)


def test_oldest_first_and_abandoned_ones_before_new_ones(world: World) -> None:
    ids = [world.create().id for _ in range(3)]
    with world.db.write() as conn:
        for job_id in ids:
            jobs.update(conn, job_id, status="queued")
        jobs.update(conn, ids[2], status="running", lease_owner="gone", lease_until=0.0)
        jobs.update(conn, ids[2], lease_epoch=world.ticking.epoch)
    claimed = [
        lease.claim(world.context, ("running", "queued"), lease.owner_name(world.rng))
        for _ in range(3)
    ]
    assert [found[0].id for found in claimed if found] == [ids[2], ids[0], ids[1]]


OWNER = """
from tunesmith.ids import SystemRng
from tunesmith.jobs.lease import owner_name
print(owner_name(SystemRng()))
"""


def test_the_lease_of_a_dead_process_ends_at_once_that_of_a_live_one_does_not(
    world: World,
) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", OWNER], check=True, capture_output=True, text=True
    ).stdout.strip()
    kept, lost = world.create(), world.create()
    for owner in (lease.owner_name(world.rng), dead):
        assert lease.claim(world.context, ("validating_files",), owner) is not None
    assert lease.reap(world.context) == 1
    assert lease.reap(world.context) == 0
    found = lease.claim(world.context, ("validating_files",), lease.owner_name(world.rng))
    assert found is not None
    assert found[0].id == lost.id
    assert world.job(kept.id).fence == 1


def test_a_reboot_ends_all_leases(world: World) -> None:
    world.create()
    assert lease.claim(world.context, ("validating_files",), "me") is not None
    world.ticking.epoch = "another boot"
    world.ticking.now_s = 1.0
    assert lease.claim(world.context, ("validating_files",), "me") is not None
