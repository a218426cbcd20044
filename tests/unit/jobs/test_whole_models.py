"""A model whose weights were all trained: published as a base of its own, continued, deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tiny_base import write_tiny_base
from tests.unit.jobs.world import FakeProcess, World, checkpoint, end, steps, validate
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.jobdir.outcome import CheckpointEntry
from tunesmith.jobdir.spec import read_spec
from tunesmith.jobs.audit import audit_directory
from tunesmith.jobs.publish import publish
from tunesmith.jobs.sweep import sweep
from tunesmith.model.listing import LISTING, problem_of, write_listing
from tunesmith.store.repo import bases, models
from tunesmith.store.repo.models import ModelRow


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def whole(process: FakeProcess, seed: int = 0, epoch: int | None = None) -> CheckpointEntry:
    """The trainer writes a checkpoint that is a whole model."""
    path = Path(f"checkpoints/step-{process.step:08d}/model")
    write_tiny_base(process.job_dir / path, seed=seed)
    sha256 = write_listing(process.job_dir / path)
    return CheckpointEntry(process.step, epoch, path, sha256, {"train_loss": 0.5}, "model")


def trained(world: World, model: str = "tiny", seed: int = 0) -> ModelRow:
    """A job that has succeeded with a whole model."""
    job = world.create(model=model)
    worker = world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    process = world.only_process()
    steps(process, 5)
    end(process, "succeeded", checkpoints=[whole(process, seed)])
    worker.tick()
    done = world.job(job.id)
    assert done.status == "succeeded", done.error
    return row_of(world, done.fine_tuned_model or "")


def row_of(world: World, name: str) -> ModelRow:
    with world.db.read() as conn:
        found = models.get_any(conn, name)
    assert found is not None
    return found


def age(path: Path) -> None:
    os.utime(path, (1, 1))


def breaches(world: World) -> list[str]:
    checks = audit_directory(world.settings, world.db)
    return [breach.message for check in checks for breach in check.breaches]


def test_it_is_a_base_that_nobody_registered(world: World) -> None:
    row = trained(world)
    assert row.adapter_sha256 is None
    with world.db.read() as conn:
        base = bases.get(conn, row.base)
        assert bases.resolve(conn, row.base) is None, "users call it by the model's name"
        assert [info.name for info in bases.list_all(conn)] == ["tiny"]
    assert base is not None
    assert base.path == world.context.model_dir(base.sha256 or "")
    assert base.fingerprint == base.sha256
    assert problem_of(base.path, base.sha256 or "", deep=True) is None


def test_models_of_one_shape_have_fingerprints_of_their_own(world: World) -> None:
    found = [trained(world, seed=seed) for seed in (1, 2)]
    with world.db.read() as conn:
        prints = {base.fingerprint for row in found if (base := bases.get(conn, row.base))}
    assert len(prints) == 2


def test_equal_models_share_one_directory_until_the_last_is_deleted(world: World) -> None:
    first, second = trained(world), trained(world)
    assert first.base == second.base
    (directory,) = world.settings.models_dir.iterdir()
    age(directory)
    for row, stays in ((first, True), (second, False)):
        with world.db.write() as conn:
            models.delete(conn, DEFAULT_PROJECT, row.name)
        sweep(world.context)
        assert directory.exists() == stays
    with world.db.read() as conn:
        assert bases.published(conn) == []


def test_a_job_goes_on_from_it(world: World) -> None:
    row = trained(world)
    job = world.create(model=row.name)
    worker = world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    process = world.only_process()
    given = read_spec(process.job_dir)
    assert given.start_adapter is None
    assert given.base.path.parent == world.settings.models_dir
    age(given.base.path)
    with world.db.write() as conn:
        models.delete(conn, DEFAULT_PROJECT, row.name)
    sweep(world.context)
    assert given.base.path.is_dir(), "the job still needs it"
    steps(process, 5)
    end(process, "succeeded", checkpoints=[checkpoint(process)])
    worker.tick()
    adapted = row_of(world, world.job(job.id).fine_tuned_model or "")
    assert adapted.base == row.base
    assert adapted.adapter_sha256 is not None
    assert adapted.label == row.label
    sweep(world.context)
    assert given.base.path.is_dir(), "an adapter was tuned on it"


def test_what_is_damaged_is_not_published(world: World) -> None:
    world.create()
    worker = world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    process = world.only_process()
    steps(process, 5)
    entry = whole(process)
    (process.job_dir / entry.path / "config.json").write_text("{}")
    end(process, "succeeded", checkpoints=[entry])
    worker.tick()
    (job,) = [world.job(process.job_dir.name)]
    assert job.status == "failed"
    assert "config.json has another size" in (job.error or {})["message"]
    assert not world.settings.models_dir.exists()


def test_publishing_again_changes_nothing(world: World) -> None:
    trained(world)
    process = next(each for each in world.executor.processes.values() if each.phase == "train")
    (directory,) = world.settings.models_dir.iterdir()
    before = {path: path.stat().st_ino for path in directory.rglob("*")}
    again = publish(world.context, process.job_dir, [whole(process)], fence=9)
    assert [each.directory for each in again.values()] == [directory]
    assert {path: path.stat().st_ino for path in directory.rglob("*")} == before


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", LISTING])
def test_the_doctor_sees_every_changed_byte(world: World, name: str) -> None:
    row = trained(world)
    (directory,) = world.settings.models_dir.iterdir()
    mine = [text for text in breaches(world) if row.name in text]
    assert mine == []
    content = bytearray((directory / name).read_bytes())
    content[-2] ^= 1
    (directory / name).unlink()
    (directory / name).write_bytes(content)
    (found,) = [text for text in breaches(world) if row.name in text]
    assert name in found
