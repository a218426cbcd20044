"""How fast this machine trains a base: from its finished jobs, or by a short rehearsal."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.bases import BaseInfo
    from tunesmith.cli.data_base import Target
    from tunesmith.data.forecast import Forecast
    from tunesmith.data.render import Example

# Event times are whole seconds: shorter jobs say too little.
MIN_JOB_S = 20
# Spent on measuring, after loading the model.
BUDGET_S = 4.0


@dataclass(frozen=True)
class Rate:
    tokens_per_s: float
    source: str
    """Where it comes from, for the user."""
    peak_bytes: int | None = None
    """Memory at the peak; None if it was not measured."""


def past_rate(jobs_dir: Path, directory: Path) -> Rate | None:
    """The rate of the newest finished job on this base in a data directory."""
    from tunesmith.train.spec import (
        EVENTS_FILE,
        RESULT_FILE,
        SPEC_FILE,
        Result,
        Spec,
        read,
        read_events,
    )

    found: list[tuple[float, Rate]] = []
    for job in jobs_dir.glob("*/") if jobs_dir.is_dir() else ():
        spec, result = read(Spec, job / SPEC_FILE), read(Result, job / RESULT_FILE)
        if spec is None or result is None or spec.base.path.resolve() != directory.resolve():
            continue
        events, _ = read_events(job / EVENTS_FILE, 0)
        times = [event.created_at for event in events if event.type == "metrics"]
        if result.status == "succeeded" and times and times[-1] - times[0] >= MIN_JOB_S:
            rate = result.trained_tokens / (times[-1] - times[0])
            found.append((times[-1], Rate(rate, f"measured by job {job.name}")))
    return max(found, key=lambda each: each[0])[1] if found else None


def rehearsed_rate(
    base: BaseInfo, examples: Sequence[Example], wanted: Forecast, device: str, threads: int
) -> Rate | None:
    """A few seconds of training that is thrown away; None where training is not installed."""
    if importlib.util.find_spec("torch") is None or not examples:
        return None
    from tunesmith.train.rehearse import rehearse

    speed = rehearse(
        base,
        examples,
        wanted.hyperparameters,
        device=device,
        threads=threads,
        budget_s=BUDGET_S,
    )
    if speed.num_steps == 0:
        return None
    source = f"measured just now over {speed.num_steps} steps on {speed.where}"
    return Rate(speed.tokens_per_s, source, speed.peak_bytes)


def describe(aim: Target) -> BaseInfo | None:
    """The base that a target is; None for a directory with a tokenizer only."""
    from tunesmith.bases import describe as read_base
    from tunesmith.errors import BaseModelError
    from tunesmith.ids import SystemClock

    try:
        return read_base(aim.directory, aim.name, SystemClock())
    except BaseModelError:
        return None
