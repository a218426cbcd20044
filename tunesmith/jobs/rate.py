"""How fast this machine trains a base: from its finished jobs, or by a short rehearsal.

`python -m tunesmith.jobs.rate` rehearses in a process of its own: a `Rehearsal` as JSON on stdin,
a `Rate` or null on stdout.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.estimate import AUTO
from tunesmith.data.prices import to_cents
from tunesmith.tariff import Tariff, rates_of, to_dollars

if TYPE_CHECKING:
    from tunesmith.bases import BaseInfo
    from tunesmith.data.forecast import Forecast
    from tunesmith.data.render import Example

# Event times are whole seconds: shorter jobs say too little.
MIN_JOB_S = 20
# By what factor the tokens of two jobs' steps may differ.
ALIKE = 2
# Spent on measuring, after loading the model.
BUDGET_S = 4.0


@dataclass(frozen=True)
class Rate:
    tokens_per_s: float
    source: str
    """Where it comes from, for the user."""
    peak_bytes: int | None = None
    """Memory at the peak; None if it was not measured."""


def past_rate(
    jobs_dir: Path, directory: Path, method: str, finetuning_type: str, tokens_per_step: float
) -> Rate | None:
    """The rate of the newest finished job of the same kind on this base in a data directory: other
    methods, and training every weight, take another time and other memory, and so do steps of
    many more or fewer tokens."""
    from tunesmith.jobdir.events import all_events
    from tunesmith.jobdir.files import read_record as read
    from tunesmith.jobdir.layout import EVENTS_FILE, RESULT_FILE, SPEC_FILE
    from tunesmith.jobdir.outcome import Result
    from tunesmith.jobdir.records import RecordError
    from tunesmith.jobdir.spec import Spec

    found: list[tuple[float, Rate]] = []
    for job in jobs_dir.glob("*/") if jobs_dir.is_dir() else ():
        try:
            spec, result = read(Spec, job / SPEC_FILE), read(Result, job / RESULT_FILE)
        except RecordError:
            # Damaged, or of another version: it tells nothing about this job.
            continue
        if spec is None or result is None or spec.base.path.resolve() != directory.resolve():
            continue
        if (spec.method, _type_of(spec.hyperparameters)) != (method, finetuning_type):
            continue
        theirs = result.trained_tokens / max(1, result.step)
        if not tokens_per_step / ALIKE <= theirs <= tokens_per_step * ALIKE:
            continue
        events = all_events(job / EVENTS_FILE)
        times = [event.created_at for event in events if event.type == "metrics"]
        if result.status == "succeeded" and times and times[-1] - times[0] >= MIN_JOB_S:
            rate = result.trained_tokens / (times[-1] - times[0])
            peak = int(result.took["peak_bytes"]) if "peak_bytes" in result.took else None
            found.append((times[-1], Rate(rate, f"measured by job {job.name}", peak)))
    return max(found, key=lambda each: each[0])[1] if found else None


def _type_of(requested: Mapping[str, Any]) -> str:
    asked = requested.get("finetuning_type")
    return "lora" if asked in (None, AUTO) else str(asked)


def rehearsed_rate(
    base: BaseInfo,
    examples: Sequence[Example],
    wanted: Forecast,
    device: str,
    threads: int,
    budget_s: float | None = None,
) -> Rate | None:
    """A few seconds of training that is thrown away; None where training is not installed."""
    if importlib.util.find_spec("torch") is None or not examples:
        return None
    from tunesmith.trainer.rehearse import rehearse

    speed = rehearse(
        base,
        examples,
        wanted.hyperparameters,
        device=device,
        threads=threads,
        budget_s=BUDGET_S if budget_s is None else budget_s,
    )
    if speed.num_steps == 0:
        return None
    source = f"measured just now over {speed.num_steps} steps on {speed.where}"
    return Rate(speed.tokens_per_s, source, speed.peak_bytes)


def local_costs(
    tariff: Tariff, base: str, trained_tokens: int, seconds: float | None
) -> list[tuple[str, Decimal]]:
    """What a job will be billed by the price table, each part with its basis; empty where it names
    no price."""
    rates = rates_of(tariff, base)
    costs = []
    if rates.training:
        dollars = to_cents(to_dollars(rates.trained(trained_tokens)))
        costs.append((f"at ${rates.training} per 1,000 tokens (settings)", dollars))
    if rates.machine_hour and seconds is not None:
        dollars = to_cents(to_dollars(rates.machine(seconds)))
        costs.append((f"at ${rates.machine_hour} per machine-hour (settings)", dollars))
    return costs


@dataclass(frozen=True)
class Rehearsal:
    """What is needed to measure; all of it passes as JSON."""

    file: str
    base: str
    """The base model's directory."""
    max_tokens: int
    method: str
    requested: Mapping[str, Any]
    device: str
    threads: int
    budget_s: float


def rehearse_apart(rehearsal: Rehearsal, timeout_s: float) -> Rate | None:
    """A rehearsal that neither holds memory afterwards nor can take the caller down with it."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tunesmith.jobs.rate"],
            input=json.dumps(asdict(rehearsal)).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=True,
        )
    except subprocess.SubprocessError:
        return None
    answer = json.loads(done.stdout)
    return None if answer is None else Rate(**answer)


def main() -> None:
    from tunesmith.bases import describe
    from tunesmith.data.forecast import forecast
    from tunesmith.data.render import Renderer
    from tunesmith.ids import SystemClock

    asked = Rehearsal(**json.load(sys.stdin))
    directory = Path(asked.base)
    base = describe(directory, directory.name, SystemClock())
    wanted = forecast(
        Path(asked.file),
        Renderer.load(directory),
        asked.max_tokens,
        asked.requested,
        method=asked.method,
    )
    found = rehearsed_rate(base, wanted.kept, wanted, asked.device, asked.threads, asked.budget_s)
    json.dump(found and asdict(found), sys.stdout)


if __name__ == "__main__":
    main()
