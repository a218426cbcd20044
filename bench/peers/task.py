"""What every trainer is asked on its command line, and the one JSON line that it answers with.

Needs nothing but Python, so that it runs in the environment of each peer.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

# Steps before the clock starts.
WARM_UP = 2


def parser() -> argparse.ArgumentParser:
    """The options of all."""
    found = argparse.ArgumentParser()
    found.add_argument("--model", type=Path, required=True)
    found.add_argument("--rows", type=Path, required=True)
    found.add_argument("--adapter", type=Path, help="LoRA from here; without it, full fine-tuning")
    found.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    found.add_argument("--batch", type=int, default=8)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--steps", type=int, required=True)
    found.add_argument("--learning-rate", type=float, default=1e-3)
    return found


def peer_parser(*arrangements: str) -> argparse.ArgumentParser:
    """The same, and how a peer lays out its batches."""
    found = parser()
    found.add_argument("--arrangement", choices=arrangements, required=True)
    found.add_argument("--packed-tokens", type=int, default=1024)
    return found


def read_rows(path: Path) -> list[dict[str, list[int]]]:
    """Token ids with labels."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Clock:
    """Time and losses of a trainer's steps; the first ones warm up and are not timed."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.wall_s = self.cpu_s = 0.0
        """Of the timed steps, once it stopped."""

    @property
    def is_running(self) -> bool:
        return len(self.losses) >= WARM_UP

    def begin_step(self) -> None:
        if len(self.losses) == WARM_UP:
            self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()

    def end_step(self, loss: float) -> None:
        self.losses.append(loss)

    def stop(self) -> None:
        """After the last step."""
        self.wall_s = time.perf_counter() - self.wall_s
        self.cpu_s = time.process_time() - self.cpu_s

    def report(self, num_tokens: int, **more: float) -> None:
        """Prints the line; the tokens are those of the timed steps."""
        found = {"tokens": num_tokens, "wall_s": self.wall_s, "cpu_s": self.cpu_s, **more}
        print(json.dumps({**found, "peak_mb": peak_mb(), "loss": self.losses}))


def peak_mb() -> float:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None, "Linux tells"
    return int(found[1]) / 1024


class Clocked:
    """To be put before a trainer of transformers: its steps go by a clock."""

    clock: Clock

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.clock.begin_step()
        value = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.clock.end_step(float(value))
        return value
