"""What the sweep takes and, above all, what it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers import OWNER
from tests.unit.jobs.world import World, checkpoint, end, steps, validate
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.jobdir.layout import CHECKPOINTS_DIR, RESULT_FILE
from tunesmith.jobs.commands import cancel_job
from tunesmith.jobs.publish import publish
from tunesmith.jobs.sweep import sweep
from tunesmith.store.repo import files, models


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.db.close()


def age(path: Path) -> None:
    os.utime(path, (1, 1))


def finished(world: World) -> str:
    job = world.create()
    worker = world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    steps(world.only_process(), 5)
    end(world.only_process(), "succeeded")
    worker.tick()
    return job.id


def test_a_deleted_file_goes_when_its_last_job_has_ended(world: World) -> None:
    job = world.create()
    with world.db.write() as conn:
        files.mark_deleted(conn, DEFAULT_PROJECT, world.file_id, 5)
    sweep(world.context)
    assert world.blobs.path(world.file_id).exists()
    cancel_job(world.db, world.clock, OWNER, job.id)
    sweep(world.context)
    assert not world.blobs.path(world.file_id).exists()


def test_only_old_blobs_without_rows_are_garbage(world: World) -> None:
    young, old = "file-" + "y" * 24, "file-" + "o" * 24
    for file_id in (young, old):
        world.blobs.writer(file_id).finish()
    age(world.blobs.path(old))
    age(world.blobs.path(world.file_id))
    sweep(world.context)
    assert world.blobs.path(young).exists()
    assert not world.blobs.path(old).exists()
    assert world.blobs.path(world.file_id).exists()


def test_adapters_live_as_long_as_a_model_names_them(world: World) -> None:
    job_id = finished(world)
    with world.db.read() as conn:
        (model,) = models.all_rows(conn)
    directory = world.context.adapter_dir(model.adapter_sha256)
    age(directory)
    sweep(world.context)
    assert directory.is_dir()
    continued = world.create(model=model.name)
    with world.db.write() as conn:
        assert models.delete(conn, DEFAULT_PROJECT, model.name)
    sweep(world.context)
    assert directory.is_dir(), "a job that is to continue it still needs it"
    cancel_job(world.db, world.clock, OWNER, continued.id)
    sweep(world.context)
    assert list(world.settings.adapters_dir.iterdir()) == []
    assert world.job(job_id).fine_tuned_model == model.name


def test_an_adapter_just_published_again_is_left_alone(world: World) -> None:
    finished(world)
    with world.db.write() as conn:
        (model,) = models.all_rows(conn)
        models.delete(conn, DEFAULT_PROJECT, model.name)
    directory = world.context.adapter_dir(model.adapter_sha256)
    age(directory)
    process = next(p for p in world.executor.processes.values() if p.phase == "train")
    publish(world.context, process.job_dir, [checkpoint(process)], fence=9)
    sweep(world.context)
    assert directory.is_dir()


def test_checkpoints_of_ended_jobs_go_and_the_record_stays(world: World) -> None:
    job_id = finished(world)
    running = world.create()
    worker = world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    steps(world.only_process(), 2)
    checkpoint(world.only_process())
    sweep(world.context)
    ended = world.context.job_dir(job_id)
    assert not (ended / CHECKPOINTS_DIR).exists()
    assert (ended / RESULT_FILE).exists()
    assert (world.context.job_dir(running.id) / CHECKPOINTS_DIR).exists()
