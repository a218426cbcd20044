"""A token bucket: full at first, refilled evenly, emptied by requests. Pure; time is passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pool:
    """What a bucket is called and how large it is."""

    key: str
    capacity: int
    period_s: float
    """In which an empty one fills up."""

    @property
    def per_s(self) -> float:
        return self.capacity / self.period_s


@dataclass(slots=True)
class Bucket:
    """Its level may fall below zero: what was used beyond a reservation is a debt."""

    pool: Pool
    level: float
    at_s: float

    def fill(self, pool: Pool, now_s: float) -> None:
        """Brings the level up to now, and to the pool's present size: what was used stays used."""
        if pool.capacity != self.pool.capacity:
            self.level += pool.capacity - self.pool.capacity
        self.pool = pool
        if now_s > self.at_s:
            self.level += (now_s - self.at_s) * pool.per_s
            self.at_s = now_s
        self.level = min(self.level, pool.capacity)


def wait_s(pool: Pool, level: float, amount: float) -> float:
    """Until a bucket at that level holds `amount`, which must not be more than it can hold."""
    return max(0.0, (amount - level) / pool.per_s) if pool.capacity else pool.period_s


def reset_s(pool: Pool, level: float) -> float:
    """Until a bucket at that level is full again."""
    return wait_s(pool, level, pool.capacity)
