"""Kills of real workers and trainers: no event missing or doubled, nothing lost, jobs finish."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers import OWNER
from tests.faults.supervised import Workplace
from tunesmith.jobdir.layout import EVENTS_FILE
from tunesmith.jobs.commands import cancel_job, pause_job, resume_job
from tunesmith.store.repo import checkpoints, models
from tunesmith.store.repo.jobs import JobRow

NUM_STEPS = 500


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(tmp_path)
    yield place
    place.close()


def succeeded(job: JobRow) -> bool:
    return job.status == "succeeded"


def create_long(place: Workplace) -> str:
    return place.create(hyperparameters={"n_epochs": 50, "batch_size": 1}).id


def check_events(place: Workplace, job_id: str) -> None:
    """Each step once and in order, no gap in the numbers, one beginning and one end."""
    events = place.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    assert steps == list(range(1, NUM_STEPS + 1))
    texts = [event.message for event in events]
    assert texts.count("Fine-tuning job started") == 1
    assert texts[-1] == "The job has successfully completed"
    assert texts.count(texts[-1]) == 1


def check_models(place: Workplace, job: JobRow) -> None:
    with place.db.read() as conn:
        rows = checkpoints.page(conn, job.id).rows
        published = [row for row in models.all_rows(conn) if row.job_id == job.id]
    assert rows[0].model_name == job.fine_tuned_model
    assert sorted(row.name for row in published) == sorted(row.model_name for row in rows)
    for row in published:
        assert row.adapter_sha256 is not None
        directory = place.settings.adapters_dir / row.adapter_sha256
        assert (directory / "adapter_model.safetensors").is_file()


def test_a_killed_worker_is_replaced_and_the_trainer_goes_on(place: Workplace) -> None:
    place.start_worker()
    job_id = create_long(place)
    place.wait_for(job_id, lambda job: job.last_step > 0)
    trainer = place.process(job_id)
    random_source = random.Random(0)
    num_adopted = 0
    for _ in range(3):
        place.kill_worker()
        time.sleep(random_source.uniform(0, 0.3))
        place.start_worker()
        fence = place.job(job_id).fence
        place.wait_for(job_id, lambda job, fence=fence: job.fence > fence or succeeded(job))
        num_adopted += place.process(job_id) == trainer
        assert place.process(job_id) in (trainer, None)
    assert num_adopted > 0
    done = place.wait_for(job_id, succeeded)
    assert done.attempts == 0
    check_events(place, job_id)
    check_models(place, done)
    assert place.stop_worker() == 0


def test_a_killed_trainer_resumes_from_its_checkpoint(place: Workplace) -> None:
    place.start_worker()
    job_id = create_long(place)
    for step in (1, 60, 200):
        place.wait_for(job_id, lambda job, step=step: job.last_step >= step)
        trainer = place.process(job_id)
        assert trainer is not None
        os.kill(trainer.pid, signal.SIGKILL)
        place.wait_for(job_id, lambda job, fence=trainer.fence: job.fence > fence)
    done = place.wait_for(job_id, succeeded)
    check_events(place, job_id)
    check_models(place, done)


def test_pause_cancel_and_shutdown_while_training(place: Workplace) -> None:
    place.start_worker()
    job_id = create_long(place)
    place.wait_for(job_id, lambda job: job.last_step > 3)
    pause_job(place.db, place.clock, OWNER, job_id)
    paused = place.wait_for(job_id, lambda job: job.status == "paused")
    with place.db.read() as conn:
        (row,) = checkpoints.page(conn, job_id).rows
    assert row.step == paused.last_step
    assert row.model_name.endswith(f":ckpt-step-{row.step}")
    resume_job(place.db, place.clock, OWNER, job_id)
    place.wait_for(job_id, lambda job: job.last_step > paused.last_step)

    # A shutdown saves the work; the next start goes on by itself.
    assert place.stop_worker() == 0
    assert place.process(job_id) is None
    queued = place.job(job_id)
    assert (queued.status, queued.lease_owner) == ("queued", None)
    place.start_worker()
    place.wait_for(job_id, lambda job: job.last_step > queued.last_step)

    cancel_job(place.db, place.clock, OWNER, job_id)
    asked_at_step = place.job(job_id).last_step
    place.wait_for(job_id, lambda job: job.status == "cancelled", timeout_s=10)
    steps = [event.data["step"] for event in place.events(job_id) if event.type == "metrics"]
    assert steps == list(range(1, len(steps) + 1))
    assert asked_at_step < len(steps) < NUM_STEPS
    assert place.process(job_id) is None


def test_everything_killed_at_once_as_by_a_power_cut(place: Workplace) -> None:
    place.start_worker()
    job_id = create_long(place)
    place.wait_for(job_id, lambda job: job.last_step > 20)
    trainer = place.process(job_id)
    assert trainer is not None
    place.kill_worker()
    os.kill(trainer.pid, signal.SIGKILL)
    log = place.settings.jobs_dir / job_id / EVENTS_FILE
    with log.open("ab") as file:
        file.write(b'{"key": "step:')
    place.start_worker()
    done = place.wait_for(job_id, succeeded)
    check_events(place, job_id)
    check_models(place, done)
