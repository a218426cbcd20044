"""What a request pays for limits and accounts: CPU time of each part, microseconds.

    python bench/metering.py [--redis]

`--redis` starts a Redis of its own and measures that limiter too, round trip included.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.callers import OWNER
from tests.redis_server import redis_server
from tunesmith.api.meter import Demand, Meter
from tunesmith.config import Settings
from tunesmith.ids import SystemClock
from tunesmith.limits.bucket import Pool
from tunesmith.limits.limiter import Charge, Draw, Limiter, LocalLimiter
from tunesmith.limits.redis import RedisLimiter
from tunesmith.ops.telemetry import Metrics
from tunesmith.ops.usage import Recorder
from tunesmith.store.db import open_database
from tunesmith.store.repo.usage import Counts, UsageKey
from tunesmith.wire.chat import PromptTokensDetails, Usage

ROUNDS, EACH = 30, 500
MANY = 10**9
POOLS = [Pool("rpm:p:b", MANY, 60.0), Pool("rpd:p:b", MANY, 86400.0), Pool("tpm:p:b", MANY, 60.0)]
PRICES: Any = {"*": {"input": Decimal("0.0002"), "output": Decimal("0.0008")}}


class Request:
    """As much of one as the meter touches."""

    def __init__(self) -> None:
        self.scope: Any = {"state": {}}


class Prepared:
    demand = Demand("completions", "m", "b", False, num_prompt=100, num_answer=50, num_asked=50)
    usage = Usage(
        prompt_tokens=100,
        completion_tokens=20,
        total_tokens=120,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=30),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of limits and accounts.")
    parser.add_argument("--redis", action="store_true")
    with_redis = parser.parse_args().redis
    rows = [
        ("limiter: 3 buckets taken, tokens settled", *timed(limiter_of(LocalLimiter(), []))),
        ("the same with 2 budgets", *timed(limiter_of(LocalLimiter(), charges()))),
        ("usage: one record", *timed(record)),
        ("all a request pays: admitted, headers made, accounted", *timed(metered)),
        ("a thread that only says hello, of the line above", *timed(hello)),
    ]
    if with_redis:
        with redis_server() as server:
            work = limiter_of(RedisLimiter(server.url), [])
            rows.append(("limiter in Redis, the same 3 buckets", *timed(work)))
    table = Table("what", "CPU us", "wall us", box=None, pad_edge=False)
    for name, cpu_us, wall_us in rows:
        table.add_row(name, f"{cpu_us:.1f}", f"{wall_us:.1f}")
    Console().print(table)


def charges() -> list[Charge]:
    return [Charge(f"{owner}:2026-11", 10**15, 1000) for owner in ("proj", "key")]


def timed(work: Callable[[int], Coroutine[Any, Any, None]]) -> tuple[float, float]:
    """Median of the rounds: (CPU time of this process, wall time), microseconds each."""

    async def rounds() -> tuple[float, float]:
        await work(EACH)
        found = []
        for _ in range(ROUNDS):
            cpu, wall = time.process_time(), time.perf_counter()
            await work(EACH)
            found.append((time.process_time() - cpu, time.perf_counter() - wall))
        return median(cpu for cpu, _ in found), median(wall for _, wall in found)

    cpu, wall = asyncio.run(rounds())
    return cpu / EACH * 1e6, wall / EACH * 1e6


def limiter_of(limiter: Limiter, held: list[Charge]) -> Callable[[int], Coroutine[Any, Any, None]]:
    async def work(num: int) -> None:
        amounts = {charge.budget: -charge.amount for charge in held}
        for _ in range(num):
            await limiter.take([Draw(POOLS[0], 1), Draw(POOLS[1], 1), Draw(POOLS[2], 150)], held)
            await limiter.settle([Draw(POOLS[2], 30)], amounts)

    return work


async def record(num: int) -> None:
    recorder = Recorder(lambda rows, held: None)
    for number in range(num):
        key = UsageKey(number % 3, "proj", "key", "user", "m", "b", "completions")
        recorder.add(key, Counts(1, 100, 30, 20, 0, 10, 1, 10, 0), {})


METERS: list[Meter] = []


def meter() -> Meter:
    if not METERS:
        data = Path(tempfile.mkdtemp())
        limits = {"requests_per_minute": MANY, "requests_per_day": MANY, "tokens_per_minute": MANY}
        settings = Settings(data=data, prices=PRICES, **limits)  # type: ignore[arg-type]
        db = open_database(data)
        METERS.append(Meter(settings, db, LocalLimiter(), Metrics(), SystemClock()))
    return METERS[0]


async def metered(num: int) -> None:
    request: Any = Request()
    for _ in range(num):
        async with await meter().admit(request, OWNER, Prepared):
            pass


async def hello(num: int) -> None:
    from anyio.to_thread import run_sync

    for _ in range(num):
        await run_sync(Prepared)


if __name__ == "__main__":
    main()
