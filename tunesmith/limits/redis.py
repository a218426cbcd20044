"""The limits of several API processes, in one Redis: each decision is one script there.

A bucket is a hash of its level and time, by Redis's own clock. What is held of a budget is a hash
with a field for each API process, which counts only while that process shows that it is alive, so
that a crash gives back what it held. A Redis that does not answer refuses requests: limits that are
silently off would be none.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from tunesmith.errors import Unavailable
from tunesmith.limits.limiter import Charge, Draw, Verdict

log = logging.getLogger("tunesmith.limits")

PREFIX = "tunesmith:"
TIMEOUT_S = 2.0
# Several times the pause between two calls of book(), which say that a process lives.
ALIVE_S = 15
# So long other processes may take to see in the books what this one has written there.
BOOKED_S = 2.0

# A bucket's level as of now; shared by both scripts.
_FILL = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function fill(key, capacity, period)
  local found = redis.call('HMGET', key, 'level', 'at', 'capacity')
  if not found[1] then return capacity end
  local level = tonumber(found[1]) + capacity - tonumber(found[3])
  local passed = math.max(0, now - tonumber(found[2]))
  return math.min(capacity, level + passed * capacity / period)
end
local function keep(key, level, capacity, period)
  redis.call('HSET', key, 'level', string.format('%.9f', level),
             'at', string.format('%.6f', now), 'capacity', capacity)
  -- Full again, and so the same as none.
  redis.call('PEXPIRE', key, math.ceil((capacity - level) / math.max(capacity, 1) * period * 1000)
             + 1000)
end
"""

# ARGV: process, prefix of signs of life, then for each bucket capacity, period, amount, then for
# each budget room, amount. KEYS: the buckets, then the budgets; ARGV[3] says how many are buckets.
# Answers {number of the refused or 0, levels as texts}.
_TAKE = (
    _FILL
    + """
local num = tonumber(ARGV[3])
local levels, shown, place, refused = {}, {}, 4, 0
for i = 1, num do
  levels[i] = fill(KEYS[i], tonumber(ARGV[place]), tonumber(ARGV[place + 1]))
  if refused == 0 and levels[i] < tonumber(ARGV[place + 2]) then refused = i end
  place = place + 3
end
local charges = place
for i = num + 1, #KEYS do
  local held = 0
  local fields = redis.call('HGETALL', KEYS[i])
  for f = 1, #fields, 2 do
    if fields[f] == ARGV[1] or redis.call('EXISTS', ARGV[2] .. fields[f]) == 1 then
      held = held + tonumber(fields[f + 1])
    else
      redis.call('HDEL', KEYS[i], fields[f])
    end
  end
  if refused == 0 and held + tonumber(ARGV[place + 1]) > tonumber(ARGV[place]) then refused = i end
  place = place + 2
end
if refused == 0 then
  place = 4
  for i = 1, num do
    levels[i] = levels[i] - tonumber(ARGV[place + 2])
    keep(KEYS[i], levels[i], tonumber(ARGV[place]), tonumber(ARGV[place + 1]))
    place = place + 3
  end
  for i = num + 1, #KEYS do
    redis.call('HINCRBY', KEYS[i], ARGV[1], ARGV[charges + 1 + 2 * (i - num - 1)])
    -- A budget is of one month.
    redis.call('EXPIRE', KEYS[i], 40 * 86400)
  end
end
for i = 1, num do shown[i] = string.format('%.9f', levels[i]) end
return {refused, shown}
"""
)

# KEYS: buckets. ARGV: for each capacity, period, amount to put back.
_PUT = (
    _FILL
    + """
for i = 1, #KEYS do
  local capacity, period = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  local level = math.min(capacity, fill(KEYS[i], capacity, period) + tonumber(ARGV[3 * i]))
  keep(KEYS[i], level, capacity, period)
end
"""
)


class RedisLimiter:
    def __init__(self, url: str) -> None:
        """Connects when it is first used."""
        options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
        self._redis = AsyncRedis.from_url(url, **options)
        self._sync = redis.Redis.from_url(url, **options)
        self._take = self._redis.register_script(_TAKE)
        self._put = self._redis.register_script(_PUT)
        self._me = secrets.token_hex(8)
        self._spent: Mapping[str, int] = {}
        self._waiting: list[tuple[float, Mapping[str, int]]] = []

    async def take(self, draws: Sequence[Draw], charges: Sequence[Charge]) -> Verdict:
        keys = [f"{PREFIX}bucket:{draw.pool.key}" for draw in draws]
        keys += [f"{PREFIX}held:{charge.budget}" for charge in charges]
        values: list[Any] = [self._me, f"{PREFIX}alive:", len(draws)]
        for draw in draws:
            values += [draw.pool.capacity, draw.pool.period_s, draw.amount]
        for charge in charges:
            values += [charge.limit - self._spent.get(charge.budget, 0), charge.amount]
        try:
            refused, levels = await self._take(keys=keys, args=values)
        except RedisError as error:
            raise _out_of_reach(error) from error
        return Verdict(tuple(map(float, levels)), int(refused) - 1 if refused else None)

    async def settle(self, back: Sequence[Draw], held: Mapping[str, int]) -> None:
        values: list[Any] = []
        for draw in back:
            values += [draw.pool.capacity, draw.pool.period_s, draw.amount]
        try:
            if back:
                keys = [f"{PREFIX}bucket:{draw.pool.key}" for draw in back]
                await self._put(keys=keys, args=values)
            for budget, amount in held.items():
                await self._redis.hincrby(f"{PREFIX}held:{budget}", self._me, amount)
        except RedisError as error:
            # The answer has been given. Buckets refill by themselves, held money ends with us.
            log.warning("a reservation was not settled in Redis: %s", error)

    def book(self, spent: Mapping[str, int], booked: Mapping[str, int]) -> None:
        now_s = time.monotonic()
        self._spent = spent
        if booked:
            self._waiting.append((now_s + BOOKED_S, booked))
        try:
            self._sync.set(f"{PREFIX}alive:{self._me}", 1, ex=ALIVE_S)
            while self._waiting and self._waiting[0][0] <= now_s:
                for budget, amount in self._waiting[0][1].items():
                    self._sync.hincrby(f"{PREFIX}held:{budget}", self._me, -amount)
                del self._waiting[0]
        except RedisError as error:
            log.warning("Redis, which keeps the limits, does not answer: %s", error)

    async def close(self) -> None:
        self._sync.close()
        await self._redis.aclose()


def _out_of_reach(error: RedisError) -> Unavailable:
    log.error("Redis, which keeps the limits, does not answer: %s", error)
    return Unavailable(
        "The rate limits cannot be checked now, so the request was refused; try again in a moment.",
        code="limits_unavailable",
        headers={"retry-after": "1"},
    )
