"""Trackers that cannot be used: the job's events say so, and nothing else happens to it.

The libraries themselves are in `make trackers`; these tests run without any of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.jobs.test_outbox import run_job
from tests.unit.jobs.world import World
from tunesmith.jobs import herald
from tunesmith.jobs.tracking import MAX_FAILURES, Tracking
from tunesmith.store.repo import trackers
from tunesmith.store.repo.trackers import TrackerRow
from tunesmith.track import __main__ as process
from tunesmith.track.protocol import Opening, Point, TrackError

WANDB: dict[str, Any] = {"type": "wandb", "wandb": {"project": "p", "tags": ["a"]}}


def rows(world: World, job_id: str) -> list[TrackerRow]:
    with world.db.read() as conn:
        return trackers.of_job(conn, job_id)


def follow(world: World, seconds: float = 20.0, until: Callable[[], bool] | None = None) -> None:
    """Tracks until nothing is open that is due, or until what is asked for."""

    async def work() -> None:
        done = False
        tracking = Tracking(world.context, lambda: done)
        running = asyncio.create_task(herald.run(tracking, lambda: done))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not until() if until else due(world):
                    await asyncio.sleep(0.05)
        done = True
        await running

    asyncio.run(work())


def due(world: World) -> bool:
    with world.db.read() as conn:
        leased = bool(trackers.holders(conn))
        return leased or trackers.is_due(conn, world.db.lease_clock(), world.clock.now())


def test_a_job_has_the_trackers_it_asks_for_and_those_of_the_server(tmp_path: Path) -> None:
    world = World(tmp_path / "data", mlflow_url="http://127.0.0.1:9", tensorboard=True)
    job = world.create(integrations=[WANDB, WANDB])
    kinds = [(row.number, row.kind, row.state) for row in rows(world, job.id)]
    assert kinds == [
        (0, "wandb", "open"),
        (1, "wandb", "open"),
        (2, "mlflow", "open"),
        (3, "tensorboard", "open"),
    ]
    assert rows(world, World(tmp_path / "other").create().id) == []


def test_a_tracker_without_its_key_is_an_event_and_not_a_failure(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    job_id = run_job(world, integrations=[WANDB])
    follow(world)
    assert world.job(job_id).status == "succeeded"
    [row] = rows(world, job_id)
    assert row.state == "failed"
    [event] = [one for one in world.events(job_id) if "Weights & Biases" in one.message]
    assert event.level == "warn"
    assert "TUNESMITH_WANDB_API_KEY" in event.message
    assert "It is not tried again" in event.message


def test_a_tracker_whose_process_dies_is_tried_again_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    world = World(tmp_path / "data")
    job_id = run_job(world, integrations=[WANDB])
    for number in range(1, MAX_FAILURES + 1):
        follow(world)
        [row] = rows(world, job_id)
        assert row.num_failures == number
        world.clock.value = row.due_at
    assert row.state == "failed"
    notes = [one.message for one in world.events(job_id) if "Weights & Biases" in one.message]
    assert len(notes) == 2
    assert "It is tried again" in notes[0]
    assert "It is not tried again" in notes[1]
    assert world.job(job_id).status == "succeeded"


def test_jobs_that_wait_or_never_ran_have_nothing_to_pass_on(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    job = world.create(integrations=[WANDB])
    assert not due(world)
    world.cancel(job.id)
    follow(world)
    assert [row.state for row in rows(world, job.id)] == ["done"]
    assert not (world.context.job_dir(job.id) / "trackers").exists()


class Recorder:
    """A tracker that keeps what it is given."""

    run_id, url = "run-1", None

    def __init__(self, opening: Opening) -> None:
        self.points: list[Point] = []
        self.status: str | None = "open"

    def send(self, points: list[Point]) -> None:
        if any("bad" in point.figures for point in points):
            raise TrackError("cannot", final=True)
        self.points += points

    def close(self, status: str | None) -> None:
        self.status = status


def test_the_process_passes_figures_on_without_the_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Recorder] = []

    def record(opening: Opening) -> Recorder:
        made.append(Recorder(opening))
        return made[0]

    monkeypatch.setitem(process.TRACKERS, "recorder", record)
    opening = {
        "kind": "recorder",
        "job_id": "ftjob-1",
        "project_id": "proj_default",
        "model": "m",
        "directory": str(tmp_path / "new"),
        "parameters": {},
    }
    figures = {"step": 3, "total_steps": 9, "train_loss": 0.5, "note": "x"}
    told: list[dict[str, Any]] = [
        {"open": opening},
        {"events": [{"seq": 7, "at": 1, "data": figures}, {"seq": 8, "at": 2, "data": {}}]},
        {"close": "succeeded"},
    ]
    said: list[dict[str, Any]] = []
    lines = iter([json.dumps(line) + "\n" for line in told])

    class Lines:
        def readline(self) -> str:
            return next(lines)

        def __iter__(self) -> Any:
            return lines

    process.follow(Lines(), lambda **line: said.append(line))  # type: ignore[arg-type]
    assert said == [{"opened": {"run_id": "run-1", "url": None}}, {"sent": 8}, {"closed": True}]
    assert made[0].points == [Point(3, 1, {"train_loss": 0.5})]
    assert made[0].status == "succeeded"


@pytest.mark.parametrize(
    ("kind", "extra"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "tensorboard")]
)
def test_a_library_that_is_not_installed_is_named_with_the_way_to_install_it(
    kind: str, extra: str, tmp_path: Path
) -> None:
    opening = {
        "kind": kind,
        "job_id": "ftjob-1",
        "project_id": "proj_default",
        "model": "m",
        "directory": str(tmp_path),
        "parameters": {},
        "config": {"project": "p"},
        "offline": True,
    }
    hidden = "import sys; sys.modules.update(dict.fromkeys(['wandb', 'mlflow', 'tensorboardX']))"
    run = f"{hidden}; import runpy; runpy.run_module('tunesmith.track', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", run],
        input=json.dumps({"open": opening}) + "\n",
        capture_output=True,
        text=True,
    )
    said = json.loads(done.stdout)
    assert said["final"] is True
    assert f"pip install 'tunesmith[{extra}]'" in said["failed"]
