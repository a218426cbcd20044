"""Both limiters keep one promise: never more than the limit lets through, and all of that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.redis_server import RedisServer, redis_server
from tunesmith.errors import Unavailable
from tunesmith.limits.bucket import Pool
from tunesmith.limits.limiter import Charge, Draw, LocalLimiter
from tunesmith.limits.redis import RedisLimiter

RPM = Pool("rpm:p:b", 60, 60.0)
TPM = Pool("tpm:p:b", 1000, 60.0)


@dataclass
class Hand:
    """A clock that stands until it is moved."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def test_twice_the_limit_gets_what_was_saved_up_and_then_the_limit() -> None:
    clock = Hand()
    limiter = LocalLimiter(clock)
    pool = Pool("rpm:p:b", 600, 60.0)

    async def load(minutes: int) -> list[int]:
        passed = []
        for _ in range(minutes):
            count = 0
            for _ in range(1200):
                clock.now_s += 60 / 1200
                count += (await limiter.take([Draw(pool, 1)], [])).refused is None
            passed.append(count)
        return passed

    first, *others = asyncio.run(load(5))
    assert first == pytest.approx(1200, rel=0.01)
    assert others == [pytest.approx(600, rel=0.01)] * 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 400), st.integers(-200, 400))))
def test_no_order_of_requests_passes_more_than_the_bucket_and_its_refill(
    steps: list[tuple[float, int, int]],
) -> None:
    """Nothing is made of nothing: what was taken, less what came back, was there or flowed in."""
    clock = Hand()
    limiter = LocalLimiter(clock)

    async def run() -> None:
        taken = 0
        for pause_s, amount, used_more in steps:
            clock.now_s += pause_s
            verdict = await limiter.take([Draw(RPM, 1), Draw(TPM, amount)], [])
            if verdict.refused is None:
                allowed = TPM.capacity + TPM.per_s * (clock.now_s - 1000)
                assert taken + amount <= allowed + 1e-6
                used_more = max(used_more, -amount)
                await limiter.settle([Draw(TPM, -used_more)], {})
                taken += amount + used_more

    asyncio.run(run())


def test_all_or_nothing() -> None:
    limiter = LocalLimiter(Hand())

    async def run() -> None:
        refused = await limiter.take([Draw(RPM, 1), Draw(TPM, 1001)], [])
        assert (refused.refused, refused.levels) == (1, (60, 1000))
        charge = Charge("proj:2026-11", 10, 11)
        refused = await limiter.take([Draw(RPM, 1)], [charge])
        assert (refused.refused, refused.levels) == (1, (60,))
        assert (await limiter.take([Draw(RPM, 60)], [])).levels == (0,)

    asyncio.run(run())


def test_a_new_limit_keeps_what_was_used() -> None:
    limiter = LocalLimiter(Hand())

    async def run() -> None:
        await limiter.take([Draw(RPM, 50)], [])
        assert (await limiter.take([Draw(Pool(RPM.key, 100, 60.0), 1)], [])).levels == (49,)
        assert (await limiter.take([Draw(Pool(RPM.key, 40, 60.0), 1)], [])).refused == 0

    asyncio.run(run())


def test_money_is_held_until_the_books_have_it() -> None:
    limiter = LocalLimiter(Hand())

    async def held(amount: int) -> bool:
        return (await limiter.take([], [Charge("b", 100, amount)])).refused is None

    async def run() -> None:
        limiter.book({"b": 30}, {})
        assert not await held(71)
        assert await held(70)
        assert not await held(1)
        await limiter.settle([], {"b": -50})  # it cost 20
        assert not await held(51)
        limiter.book({"b": 50}, {"b": 20})
        assert await held(50)

    asyncio.run(run())


def test_redis_counts_for_several_processes_together(server: RedisServer) -> None:
    pool, tokens = Pool("rpm:redis:b", 20, 3600.0), Pool("tpm:redis:b", 1000, 3600.0)

    async def run() -> None:
        limiters = [RedisLimiter(server.url) for _ in range(3)]
        verdicts = await asyncio.gather(
            *(each.take([Draw(pool, 1), Draw(tokens, 10)], []) for each in limiters * 10)
        )
        assert sum(each.refused is None for each in verdicts) == 20
        assert min(each.levels[0] for each in verdicts) == pytest.approx(0, abs=0.1)
        await limiters[0].settle([Draw(tokens, 150)], {})
        full = await limiters[1].take([Draw(tokens, 951)], [])
        assert (full.refused, full.levels[0]) == (0, pytest.approx(950, abs=1))
        for each in limiters:
            await each.close()

    asyncio.run(run())


def test_redis_refills_by_its_own_clock(server: RedisServer) -> None:
    pool = Pool("rpm:refill:b", 50, 1.0)

    async def run() -> None:
        limiter = RedisLimiter(server.url)
        started, passed = time.monotonic(), 0
        while time.monotonic() < started + 1.0:
            passed += (await limiter.take([Draw(pool, 1)], [])).refused is None
        assert 80 <= passed <= 50 + 50 * (time.monotonic() - started) + 1
        await limiter.close()

    asyncio.run(run())


def test_what_a_dead_process_held_in_redis_is_free_again(server: RedisServer) -> None:
    async def run() -> None:
        dead, alive = RedisLimiter(server.url), RedisLimiter(server.url)
        dead.book({}, {})
        alive.book({}, {})
        charge = Charge("proj:2026-12", 100, 60)
        assert (await dead.take([], [charge])).refused is None
        assert (await alive.take([], [charge])).refused == 0
        server.forget_process(dead)
        assert (await alive.take([], [charge])).refused is None
        await dead.close()
        await alive.close()

    asyncio.run(run())


def test_a_redis_that_is_gone_refuses_and_says_so() -> None:
    async def run() -> None:
        limiter = RedisLimiter("redis://127.0.0.1:1")
        with pytest.raises(Unavailable) as refused:
            await limiter.take([Draw(RPM, 1)], [])
        assert refused.value.code == "limits_unavailable"
        await limiter.settle([Draw(RPM, 1)], {})
        limiter.book({}, {})
        await limiter.close()

    asyncio.run(run())


def test_a_decision_costs_less_than_50_microseconds() -> None:
    limiter = LocalLimiter()
    draws = [Draw(RPM, 0), Draw(Pool("rpd:p:b", 60, 86400.0), 0), Draw(TPM, 0)]

    async def run() -> float:
        best = 1.0
        for _ in range(20):
            started = time.thread_time()
            for _ in range(200):
                await limiter.take(draws, [])
                await limiter.settle(draws[2:], {})
            best = min(best, (time.thread_time() - started) / 200)
        return best

    assert asyncio.run(run()) < 50e-6
