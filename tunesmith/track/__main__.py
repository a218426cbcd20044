"""python -m tunesmith.track: feeds one run of one tracker, told by a worker (see protocol.py).

A process of its own, for the time in which a job runs: what a tracker's library does to its
process, or on its way to a server far away, touches nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tunesmith.track.mlflow_run import MlflowRun
from tunesmith.track.protocol import Opening, Point, Tracker, TrackError
from tunesmith.track.tensorboard_run import TensorboardRun
from tunesmith.track.wandb_run import WandbRun

TRACKERS: dict[str, Callable[[Opening], Tracker]] = {
    "wandb": WandbRun,
    "mlflow": MlflowRun,
    "tensorboard": TensorboardRun,
}
# Not a curve: where on it we are.
AXES = ("step", "total_steps")


def main() -> int:
    # What libraries print must not come between our lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        follow(sys.stdin, lambda **line: _say(out, line))
    except TrackError as error:
        _say(out, {"failed": error.message, "final": error.final})
        return 1
    except BrokenPipeError:
        return 1
    return 0


def follow(lines: IO[str], say: Callable[..., None]) -> None:
    """Works off the lines until the input ends. Raises TrackError."""
    opening = _opening(json.loads(lines.readline())["open"])
    opening.directory.mkdir(parents=True, exist_ok=True)
    tracker = TRACKERS[opening.kind](opening)
    say(opened={"run_id": tracker.run_id, "url": tracker.url})
    status = None
    for line in lines:
        told: dict[str, Any] = json.loads(line)
        if "close" in told:
            status = told["close"]
            break
        batch: list[dict[str, Any]] = told["events"]
        tracker.send(list(_points(batch)))
        say(sent=batch[-1]["seq"])
    tracker.close(status)
    say(closed=True)


def _points(batch: list[dict[str, Any]]) -> Iterator[Point]:
    for event in batch:
        figures = {
            name: float(value)
            for name, value in event["data"].items()
            if name not in AXES and isinstance(value, int | float)
        }
        if figures:
            yield Point(int(event["data"]["step"]), int(event["at"]), figures)


def _opening(told: dict[str, Any]) -> Opening:
    return Opening(**{**told, "directory": Path(told["directory"])})


def _say(out: IO[str], line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
