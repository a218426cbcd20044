"""Kills a trainer at random instants and lets it go on, as often as asked."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.trainer_job import adapter_bytes, make_job, metrics_of, relaunched, result_of
from tunesmith.jobdir.layout import CHECKPOINTS_DIR
from tunesmith.jobdir.process import Phase, Process, is_alive
from tunesmith.jobdir.spec import read_spec

# Long enough to be killed in, with checkpoints often enough to be killed in one.
HYPER = {"n_epochs": 12, "batch_size": 3, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.1}
SAVE_EVERY_S = 0.03
KILLS_PER_JOB = 5


class WarmServer:
    """`python -m tunesmith.trainer.warm` as the worker talks to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith.trainer.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._answer() == {"ready": True}
        self.pid = self._process.pid

    def ask(self, line: bytes) -> dict[str, object]:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        return self._answer()

    def launch(self, phase: Phase, job_dir: Path) -> Process:
        answer = self.ask(json.dumps({"phase": phase, "job_dir": str(job_dir)}).encode())
        pid, start_ticks = answer["pid"], answer["start_ticks"]
        assert isinstance(pid, int)
        assert isinstance(start_ticks, int)
        return Process(pid, start_ticks, read_spec(job_dir).fence, phase)

    def run(self, phase: Phase, job_dir: Path) -> None:
        """Launches and waits for the end."""
        wait(self.launch(phase, job_dir))

    def close(self) -> int:
        """Ends its input; its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(10)

    def _answer(self) -> dict[str, object]:
        assert self._process.stdout is not None
        answer: dict[str, object] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def warm_server() -> Iterator[WarmServer]:
    server = WarmServer()
    try:
        yield server
    finally:
        server.close()


def wait(process: Process, timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while is_alive(process):
        assert time.monotonic() < deadline, "the trainer does not end"
        time.sleep(0.002)


def kill_and_compare(directory: Path, num_kills: int, seed: int, **spec: Any) -> dict[str, int]:
    """Kills trainers of equal jobs `num_kills` times in all; the final bytes must be one.

    Returns how often the kill found what: a checkpoint half written, a resume, nothing.
    """
    chance = random.Random(seed)
    found = {"half_written": 0, "with_checkpoint": 0, "without": 0}
    with warm_server() as server:
        fields = {"hyperparameters": HYPER, "save_every_s": SAVE_EVERY_S} | spec
        whole = make_job(directory / "whole", **fields)
        started = time.monotonic()
        server.run("train", whole)
        lasts_s = time.monotonic() - started
        assert result_of(whole).status == "succeeded"
        for number in range(-(-num_kills // KILLS_PER_JOB)):
            job_dir = make_job(directory / f"killed-{number}", **fields)
            for _ in range(min(KILLS_PER_JOB, num_kills - number * KILLS_PER_JOB)):
                process = server.launch("train", job_dir)
                time.sleep(chance.uniform(0.0, 0.7 * lasts_s))
                if is_alive(process):
                    os.kill(process.pid, signal.SIGKILL)
                wait(process)
                found[_left(job_dir)] += 1
                relaunched(job_dir)
            server.run("train", job_dir)
            assert result_of(job_dir).status == "succeeded", seed
            assert adapter_bytes(job_dir) == adapter_bytes(whole), seed
            assert metrics_of(job_dir) == metrics_of(whole), seed
    return found


def _left(job_dir: Path) -> str:
    directory = job_dir / CHECKPOINTS_DIR
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    if any(name.startswith(".") for name in names):
        return "half_written"
    return "with_checkpoint" if names else "without"
