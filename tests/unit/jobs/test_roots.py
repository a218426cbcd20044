"""Whose limits and prices a model goes by, whose weights were all trained, perhaps twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.jobs.world import BASE, World, base_info
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.store.repo import bases, checkpoints, jobs, models
from tunesmith.store.repo.checkpoints import CheckpointRow
from tunesmith.store.repo.models import ModelRow


def publish(world: World, start: str, base: str) -> str:
    """A model of a base of its own, made by a job on `start`."""
    job = world.create(model=start)
    row = ModelRow(
        name=f"ft:{base}",
        project_id=DEFAULT_PROJECT,
        kind="tuned",
        label=BASE,
        base=base,
        adapter_sha256=None,
        job_id=job.id,
        created_at=1,
        owned_by="org-personal",
    )
    with world.db.write() as conn:
        if bases.get(conn, base) is None:
            bases.insert(conn, replace(base_info(base), sha256=base * 8))
        models.insert(conn, row)
        jobs.update(conn, job.id, finished_at=1)
        checkpoints.insert(conn, CheckpointRow(f"ckpt-{base}", job.id, 1, row.name, {}, 1))
    return row.name


def test_the_registered_base_is_found_through_any_number_of_trainings(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = publish(world, BASE, "full-1")
    second = publish(world, first, "full-2")
    with world.db.read() as conn:
        roots = {name: bases.root_of(conn, name) for name in (BASE, "full-1", "full-2", "none")}
    assert roots == {BASE: BASE, "full-1": BASE, "full-2": BASE, "none": "none"}
    # A job on a model keeps its base; the names themselves are not needed to find the way back.
    world.create(model=second)
    with world.db.write() as conn:
        for name in (first, second):
            models.delete(conn, DEFAULT_PROJECT, name)
        bases.drop_unused(conn)
        assert bases.get(conn, "full-1") is None
        assert bases.root_of(conn, "full-2") == BASE
    world.db.close()
