"""Several processes train one job: the same figures as one, the same bytes each time, one end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer_job import (
    adapter_bytes,
    events_of,
    make_job,
    metrics_of,
    relaunched,
    result_of,
)
from tunesmith.errors import JobError
from tunesmith.group import agreement
from tunesmith.group.fork import run_forked
from tunesmith.group.place import Place
from tunesmith.group.world import Abandoned, join
from tunesmith.jobdir.checkpoints import MODEL_DIR
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import PLAN_FILE, RESULT_FILE
from tunesmith.jobdir.outcome import Failure
from tunesmith.train import loop
from tunesmith.train import step as steps
from tunesmith.train.optimizer import AdamW
from tunesmith.train.plan import Plan
from tunesmith.trainer.process import ABANDONED, DONE, FENCED, run

FULL = {"n_epochs": 4, "batch_size": 3, "finetuning_type": "full"}
KINDS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {"method": "dpo"},
    "full": {"hyperparameters": FULL},
}
DROPOUT = {"n_epochs": 4, "batch_size": 3, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.1}


def trained(directory: Path, processes: int, **fields: Any) -> Path:
    job_dir = make_job(directory, processes=processes, **fields)
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded"
    return job_dir


def at(monkeypatch: pytest.MonkeyPatch, rank: int, step: int, act: Any) -> None:
    """Lets the process of that rank do something before it learns a step."""
    original = loop.learn

    def learn(job: Any, run: Any, number: int) -> None:
        if (job.world.rank, number) == (rank, step):
            act(job)
        original(job, run, number)

    monkeypatch.setattr(loop, "learn", learn)


def final_bytes(job_dir: Path) -> dict[str, bytes]:
    last = job_dir / result_of(job_dir).checkpoints[-1].path
    root = last.parent if last.name == MODEL_DIR else last
    names = ("adapter_model.safetensors", "model/model.safetensors", "optimizer.safetensors")
    return {name: (root / name).read_bytes() for name in names if (root / name).exists()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of two processes, with dropout."""
    return trained(tmp_path_factory.mktemp("world") / "pair", 2, hyperparameters=DROPOUT)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The figures of one process, by kind and step."""
    directory = tmp_path_factory.mktemp("alone")
    return {
        kind: metrics_of(trained(directory / kind, 1, **fields)) for kind, fields in KINDS.items()
    }


@pytest.mark.parametrize(("kind", "num"), [("sft", 4), ("sft", 2), ("dpo", 2), ("full", 2)])
def test_the_figures_are_those_of_one_process(
    kind: str, num: int, alone: dict[str, Any], tmp_path: Path
) -> None:
    job_dir = trained(tmp_path / "together", num, **KINDS[kind])
    together = metrics_of(job_dir)
    assert together.keys() == alone[kind].keys()
    for key, expected in alone[kind].items():
        assert together[key] == pytest.approx(expected, abs=1e-6), key
    plan = read_record(Plan, job_dir / PLAN_FILE)
    assert plan is not None
    assert plan.processes == num
    text = next(event.message for event in events_of(job_dir) if event.key == "plan")
    assert f"on {num} processes (CPU, 1 thread each)" in text


def test_the_same_job_twice_gives_the_same_bytes(pair: Path, tmp_path: Path) -> None:
    again = trained(tmp_path / "again", 2, hyperparameters=DROPOUT)
    assert final_bytes(again) == final_bytes(pair)
    assert metrics_of(again) == metrics_of(pair)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_pause_and_a_resume_leave_no_trace(
    rank: int, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sees the request first: all stop after the same step."""
    job_dir = make_job(tmp_path / "job", processes=2, hyperparameters=DROPOUT)
    at(monkeypatch, rank, 6, lambda job: write_control(job.dir, "pause"))
    assert run("train", job_dir) == DONE
    result = result_of(job_dir)
    assert result.status == "paused"
    assert result.step >= 6
    assert run("train", relaunched(job_dir)) == DONE
    assert final_bytes(job_dir) == final_bytes(pair)
    assert metrics_of(job_dir) == metrics_of(pair)


def test_whole_models_are_resumed_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moments lie in parts, one with each process."""
    whole = trained(tmp_path / "whole", 2, hyperparameters=FULL)
    job_dir = make_job(tmp_path / "job", processes=2, hyperparameters=FULL)
    at(monkeypatch, 0, 6, lambda job: write_control(job.dir, "pause"))
    run("train", job_dir)
    assert result_of(job_dir).status == "paused"
    run("train", relaunched(job_dir))
    assert final_bytes(job_dir) == final_bytes(whole)


def test_a_process_that_dies_ends_all_and_the_job_goes_on(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job_dir = make_job(tmp_path / "job", processes=2, hyperparameters=DROPOUT)
    with monkeypatch.context() as patch:
        at(patch, 1, 9, lambda job: os.kill(os.getpid(), signal.SIGKILL))
        assert run("train", job_dir) == ABANDONED
    assert not (job_dir / RESULT_FILE).exists()
    assert "Another process of this job has ended" in capfd.readouterr().err
    assert run("train", relaunched(job_dir)) == DONE
    assert final_bytes(job_dir) == final_bytes(pair)
    assert metrics_of(job_dir) == metrics_of(pair)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_any_process_is_the_jobs(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: Any) -> None:
        raise JobError("It went wrong.", code="server_error")

    job_dir = make_job(tmp_path / "job", processes=2)
    at(monkeypatch, rank, 3, fail)
    assert run("train", job_dir) == DONE
    result = result_of(job_dir)
    assert (result.status, result.step) == ("failed", 2)
    assert result.error == Failure("server_error", "It went wrong.")


def test_a_higher_fence_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_dir = make_job(tmp_path / "job", processes=2)
    at(monkeypatch, 1, 3, lambda job: relaunched(job.dir))
    assert run("train", job_dir) == FENCED
    assert not (job_dir / RESULT_FILE).exists()


def test_memory_that_one_lacks_is_spared_by_all(
    alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = steps._own_batches

    def own_batches(forward: Any, objective: Any, rows: Any, max_tokens: int) -> Any:
        if forward.world.rank == 1 and max_tokens > 500:
            raise MemoryError
        return original(forward, objective, rows, max_tokens)

    monkeypatch.setattr(steps, "_own_batches", own_batches)
    job_dir = trained(tmp_path / "job", 2)
    plan = read_record(Plan, job_dir / PLAN_FILE)
    assert plan is not None
    assert plan.micro_tokens == 256
    assert [e.key for e in events_of(job_dir) if "Out of memory" in e.message] == [
        "warn:memory:1024",
        "warn:memory:512",
        "warn:memory:256",
    ]
    for key, expected in metrics_of(job_dir).items():
        assert expected == pytest.approx(alone["sft"][key], abs=1e-6), key


def test_another_number_of_processes_is_told(
    alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = make_job(tmp_path / "job", processes=2, hyperparameters=FULL)
    with monkeypatch.context() as patch:
        at(patch, 0, 6, lambda job: write_control(job.dir, "pause"))
        run("train", job_dir)
    assert run("train", relaunched(job_dir, processes=1)) == DONE
    told = [event for event in events_of(job_dir) if event.key == "warn:processes:2"]
    assert len(told) == 1
    assert told[0].message.startswith("The job was trained by 2 processes and goes on with 1")
    for key, found in metrics_of(job_dir).items():
        assert found == pytest.approx(alone["full"][key], abs=1e-6), key


def test_a_step_too_small_for_all_is_told(tmp_path: Path) -> None:
    hyper = {"n_epochs": 1, "batch_size": 1, "lora_rank": 4, "lora_alpha": 8}
    job_dir = trained(tmp_path / "job", 2, num_rows=10, hyperparameters=hyper)
    told = [event.message for event in events_of(job_dir) if event.key == "warn:batch"]
    text = "A step of 1 keeps only 1 of 2 processes busy: a larger batch_size is as fast."
    assert told == [text]


def test_processes_that_read_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = agreement.check_same_inputs

    def check(world: Any, base: Any, *corpora: Any) -> None:
        original(world, base, *corpora[world.rank :])

    monkeypatch.setattr("tunesmith.train.start.check_same_inputs", check)
    job_dir = make_job(tmp_path / "job", processes=2)
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "processes_differ"
    assert "do not read the same files" in error.message


def test_each_process_keeps_the_moments_of_its_part() -> None:
    values = torch.arange(1000.0).view(10, 100)

    def work(place: Place) -> int:
        world = join(place)
        alone, shared = AdamW([values.clone()]), AdamW([values.clone()], world)
        for optimizer in (alone, shared):
            optimizer.gradient[:1000] = torch.linspace(-1, 1, 1000)
            optimizer.update(0.1)
        assert shared._mean.numel() == shared._square.numel() == 512
        assert torch.equal(shared.values[:1000], alone.values[:1000])
        state = shared.state()
        if world.is_first:
            assert torch.equal(state["square"], alone.state()["square"])
        world.leave()
        return DONE

    assert run_forked(2, work) == DONE


def test_a_process_that_hangs_is_given_up() -> None:
    def work(place: Place) -> int:
        world = join(place, timeout=timedelta(seconds=1))
        if world.rank == 1:
            time.sleep(60)
        with pytest.raises(Abandoned, match="has ended or hangs"):
            world.sum_(torch.zeros(1))
        world.leave()
        return ABANDONED

    assert run_forked(2, work) == ABANDONED


def test_torchrun_gives_the_same_bytes(pair: Path, tmp_path: Path) -> None:
    """The entry point by hand, with another launcher."""
    job_dir = make_job(tmp_path / "job", hyperparameters=DROPOUT)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    subprocess.run(
        [*torchrun, "-m", "tunesmith.trainer", "train", str(job_dir)],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result_of(job_dir).status == "succeeded"
    assert adapter_bytes(job_dir) == adapter_bytes(pair)
