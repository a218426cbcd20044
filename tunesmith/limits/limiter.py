"""Takes from several buckets and budgets at once, or from none.

Two limiters keep the same promise: `LocalLimiter` within one process, `RedisLimiter` (redis.py) for
several API processes that share a Redis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunesmith.limits.bucket import Bucket, Pool


@dataclass(frozen=True, slots=True)
class Draw:
    pool: Pool
    amount: int


@dataclass(frozen=True, slots=True)
class Charge:
    """Money that a request may cost, nano-dollars, against what may be spent altogether."""

    budget: str
    limit: int
    amount: int


@dataclass(frozen=True, slots=True)
class Verdict:
    levels: tuple[float, ...]
    """Of each bucket, after taking; where something was refused, as it was found."""
    refused: int | None = None
    """Which of the draws, and after them the charges, did not fit; None = all were taken."""


class Limiter(Protocol):
    """Money is held from take() until the books contain it: what they say was spent, what is held
    and what is asked for stay within the limit together."""

    async def take(self, draws: Sequence[Draw], charges: Sequence[Charge]) -> Verdict:
        """All or nothing."""
        ...

    async def settle(self, back: Sequence[Draw], held: Mapping[str, int]) -> None:
        """Puts amounts back into buckets (negative ones are taken, as a debt), and changes by how
        much each budget is held."""
        ...

    def book(self, spent: Mapping[str, int], booked: Mapping[str, int]) -> None:
        """What the books say now, and how much of it was held until now. From any thread."""
        ...

    async def close(self) -> None: ...


class LocalLimiter:
    """Buckets in this process; its event loop is the only one that takes."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._buckets: dict[str, Bucket] = {}
        self._books = threading.Lock()
        self._held: dict[str, int] = {}
        self._spent: Mapping[str, int] = {}

    def seed(self, used: Iterable[tuple[Pool, int]]) -> None:
        """Starts buckets at what is left of them, after a restart."""
        now_s = self._monotonic()
        for pool, amount in used:
            self._buckets[pool.key] = Bucket(pool, max(0, pool.capacity - amount), now_s)

    async def take(self, draws: Sequence[Draw], charges: Sequence[Charge]) -> Verdict:
        now_s = self._monotonic()
        buckets = [self._filled(draw.pool, now_s) for draw in draws]
        found = tuple(bucket.level for bucket in buckets)
        for number, draw in enumerate(draws):
            if found[number] < draw.amount:
                return Verdict(found, number)
        if charges:
            refused = self._hold(charges)
            if refused is not None:
                return Verdict(found, len(draws) + refused)
        for bucket, draw in zip(buckets, draws, strict=True):
            bucket.level -= draw.amount
        return Verdict(tuple(bucket.level for bucket in buckets))

    async def settle(self, back: Sequence[Draw], held: Mapping[str, int]) -> None:
        now_s = self._monotonic()
        for draw in back:
            bucket = self._filled(draw.pool, now_s)
            bucket.level = min(bucket.level + draw.amount, draw.pool.capacity)
        if held:
            with self._books:
                self._change(held, 1)

    def book(self, spent: Mapping[str, int], booked: Mapping[str, int]) -> None:
        with self._books:
            self._spent = spent
            self._change(booked, -1)

    async def close(self) -> None:
        pass

    def _filled(self, pool: Pool, now_s: float) -> Bucket:
        bucket = self._buckets.get(pool.key)
        if bucket is None:
            bucket = self._buckets[pool.key] = Bucket(pool, pool.capacity, now_s)
        bucket.fill(pool, now_s)
        return bucket

    def _hold(self, charges: Sequence[Charge]) -> int | None:
        with self._books:
            for number, charge in enumerate(charges):
                gone = self._spent.get(charge.budget, 0) + self._held.get(charge.budget, 0)
                if gone + charge.amount > charge.limit:
                    return number
            self._change({charge.budget: charge.amount for charge in charges}, 1)
        return None

    def _change(self, amounts: Mapping[str, int], sign: int) -> None:
        for budget, amount in amounts.items():
            left = self._held.get(budget, 0) + sign * amount
            if left:
                self._held[budget] = left
            else:
                self._held.pop(budget, None)
