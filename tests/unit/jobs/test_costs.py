"""What jobs cost: told before, booked once, and kept within budgets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.callers import OWNER
from tests.unit.jobs.world import BASE, World, end, steps, validate
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.errors import TooMany
from tunesmith.jobdir.layout import PROCESS_FILE, RESULT_FILE
from tunesmith.jobs.commands import pause_job, resume_job
from tunesmith.store.repo import job_costs, limits, usage
from tunesmith.store.repo.job_costs import JobCost
from tunesmith.tariff import NANOS, Rates

# A job of 100 tokens in one epoch costs a dollar.
PRICES = {BASE: Rates(training=Decimal(10), machine_hour=Decimal("3.6"))}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, prices=PRICES)
    yield world
    world.db.close()


def cost(world: World, job_id: str) -> JobCost:
    with world.db.read() as conn:
        return job_costs.get(conn, job_id)


def spent(world: World) -> dict[str, int]:
    with world.db.read() as conn:
        return usage.spent_in(conn, usage.month_of(int(world.clock.now())))


def budget(world: World, dollars: Decimal) -> None:
    with world.db.write() as conn:
        limits.set_budget(conn, DEFAULT_PROJECT, int(dollars * NANOS))


def worked_for(world: World, seconds: int) -> None:
    """The process whose result is there took so long."""
    (process,) = (p for p in world.executor.processes.values() if p.phase == "train")
    result = process.job_dir / RESULT_FILE
    started = (process.job_dir / PROCESS_FILE).stat().st_mtime
    os.utime(result, (started + seconds, started + seconds))


def test_before_and_after(world: World) -> None:
    job, worker = world.create(), world.supervisor()
    assert cost(world, job.id) == JobCost(job.id)
    worker.tick()
    validate(world.only_process(), total_steps=1)
    worker.tick()
    before = cost(world, job.id)
    assert (before.estimated_tokens, before.estimated_nanos) == (100, NANOS)
    with world.db.read() as conn:
        assert job_costs.reserved(conn) == {DEFAULT_PROJECT: NANOS, OWNER.key_id: NANOS}
    process = world.only_process()
    steps(process, 1, 1)
    end(process, "succeeded", 1)
    worked_for(world, 1000)
    worker.tick()
    after = cost(world, job.id)
    assert after.trained_tokens == after.estimated_tokens == world.job(job.id).trained_tokens
    assert after.training_nanos == after.estimated_nanos
    assert (after.machine_s, after.machine_nanos) == (1000, NANOS)
    assert spent(world) == {DEFAULT_PROJECT: 2 * NANOS, OWNER.key_id: 2 * NANOS}
    with world.db.read() as conn:
        assert job_costs.reserved(conn) == {}


def test_a_paused_job_is_billed_in_parts_that_add_up(world: World) -> None:
    job, worker = world.create(), world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    process = world.only_process()
    steps(process, 2)
    pause_job(world.db, world.clock, OWNER, job.id)
    worker.tick()
    end(process, "paused")
    worker.tick()
    assert cost(world, job.id).trained_tokens == 200
    resume_job(world.db, world.clock, OWNER, job.id)
    worker.tick()
    world.only_process().step = 2
    steps(world.only_process(), 3)
    end(world.only_process(), "succeeded")
    worker.tick()
    done = cost(world, job.id)
    assert (done.trained_tokens, done.training_nanos) == (500, 5 * NANOS)
    with world.db.read() as conn:
        [total] = usage.totals(conn, kinds=("training",), start=0, end=2**40, width=2**40)
    assert (total.counts.input_tokens, total.counts.input_nanos) == (500, 5 * NANOS)


def test_a_job_that_would_pass_the_budget_does_not_start(world: World) -> None:
    budget(world, Decimal("1.50"))
    first, second, worker = world.create(), world.create(), world.supervisor()
    worker.tick()
    validate(world.only_process(), total_steps=1)
    worker.tick()
    assert world.job(first.id).status in ("queued", "running")
    # What the first is expected to cost is not free for the second.
    waiting = next(p for p in world.executor.live() if p.phase == "validate")
    validate(waiting, total_steps=1)
    worker.tick()
    failed = world.job(second.id)
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == ("failed", "insufficient_quota")
    assert (
        f"Cost of job {second.id}: USD 1.00. Quota remaining for proj_default: USD 0.50."
        in (failed.error["message"])
    )
    assert world.job(first.id).status == "running"


def test_machine_time_is_foreseen_from_earlier_jobs_and_from_the_running_one(world: World) -> None:
    """100 tokens take 1,000 s, a dollar of machine time."""
    first, worker = world.create(), world.supervisor()
    worker.tick()
    validate(world.only_process(), total_steps=1)
    worker.tick()
    assert cost(world, first.id).expected_machine_nanos == 0
    steps(world.only_process(), 1, 1)
    end(world.only_process(), "succeeded", 1)
    worked_for(world, 1000)
    worker.tick()
    second = world.create()
    worker.tick()
    validate(world.only_process(), total_steps=10)
    worker.tick()
    expected = cost(world, second.id)
    assert (expected.estimated_nanos, expected.expected_machine_nanos) == (NANOS, NANOS)
    process = world.only_process()
    now = world.clock.now()
    os.utime(process.job_dir / PROCESS_FILE, (now, now))
    # Slower: 200 s for each of 10 steps.
    for _ in range(2):
        world.clock.value += 200
        world.ticking.now_s += 200
        steps(process, 1, 10)
        worker.tick()
    assert cost(world, second.id).expected_machine_nanos == 2 * NANOS
    with world.db.read() as conn:
        assert job_costs.reserved(conn)[DEFAULT_PROJECT] == 3 * NANOS
    budget(world, Decimal("6.50"))
    third = world.create()
    worker.tick()
    validate(next(p for p in world.executor.live() if p.phase == "validate"), total_steps=1)
    worker.tick()
    error = world.job(third.id).error
    assert error is not None and error["code"] == "insufficient_quota"
    assert (
        f"Cost of job {third.id}: USD 2.00. Quota remaining for proj_default: USD 1.50."
        in (error["message"])
    )


def test_where_time_costs_nothing_nobody_asks_when_a_process_began(tmp_path: Path) -> None:
    world = World(tmp_path, prices={BASE: Rates(training=Decimal(10))})
    job, worker = world.create(), world.supervisor()
    worker.tick()
    validate(world.only_process(), total_steps=10)
    worker.tick()
    process = world.only_process()
    (process.job_dir / PROCESS_FILE).unlink()
    for _ in range(2):
        world.ticking.now_s += 10
        steps(process, 1, 10)
        worker.tick()
    assert world.job(job.id).last_step == 2
    assert world.job(job.id).estimated_finish is not None
    assert cost(world, job.id).expected_machine_nanos == 0
    world.db.close()


def test_no_job_is_taken_where_no_money_is_left(world: World) -> None:
    budget(world, Decimal(0))
    with pytest.raises(TooMany) as refused:
        world.create()
    assert refused.value.code == "insufficient_quota"


def test_jobs_of_24_hours(tmp_path: Path) -> None:
    world = World(tmp_path, jobs_per_day=2)
    world.create()
    world.clock.value += 3600
    world.create(idempotency_key="again")
    with pytest.raises(TooMany) as refused:
        world.create()
    assert refused.value.code == "daily_rate_limit_exceeded"
    # Not another job, so not one too many.
    world.create(idempotency_key="again")
    world.clock.value += 86400 - 3600
    world.create()
    with pytest.raises(TooMany):
        world.create()
    with world.db.write() as conn:
        limits.set_rates(conn, DEFAULT_PROJECT, BASE, limits.RateLimit(jobs_per_day=3))
    world.create()
    world.db.close()
