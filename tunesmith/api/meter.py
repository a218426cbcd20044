"""Lets requests for answers pass within their limits, and accounts for what they used.

    async with await svc.meter.admit(request, caller, prepare) as admission: ...

On the way in: a place among the open requests, one request and the tokens it may take from the
project's pools of the base, and the money it may cost. On the way out: what was not used goes
back, and what was used is recorded, once, also where the client hung up halfway.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from anyio.to_thread import run_sync
from fastapi import Request

from tunesmith.access import Caller
from tunesmith.api.books import Books, read_books
from tunesmith.config import Settings
from tunesmith.errors import TooMany, TunesmithError, Unavailable
from tunesmith.ids import Clock
from tunesmith.limits import wording
from tunesmith.limits.limiter import Charge, Draw, Limiter, LocalLimiter, Verdict
from tunesmith.ops.telemetry import Metrics
from tunesmith.ops.usage import Held, Recorder, Rows
from tunesmith.store.db import Database
from tunesmith.store.repo import usage
from tunesmith.store.repo.usage import Counts, Kind, UsageKey, month_of
from tunesmith.tariff import Rates, rates_of, to_dollars
from tunesmith.wire.chat import Usage
from tunesmith.wire.sampling import UsedTier

log = logging.getLogger("tunesmith.api")

DAY_S = 86400


@dataclass(frozen=True)
class Demand:
    """What a request asks for, known before anything is done for it."""

    kind: Kind
    model: str
    """As the caller named it."""
    base: str
    """The registered base whose pools it draws on: a tuned model shares those of its base."""
    tuned: bool
    num_prompt: int
    num_answer: int = 0
    """Tokens of the longest answer there may be, all choices together."""
    num_asked: int = 0
    """Of them those the caller asked for (max_tokens). An answer without a limit of its own draws
    on the pool as it is known: its prompt at first, the rest when it has ended."""
    service_tier: UsedTier = "default"


class Metered(Protocol):
    @property
    def demand(self) -> Demand: ...

    @property
    def usage(self) -> Usage:
        """So far."""
        ...


@dataclass(frozen=True)
class PromptOnly:
    """A request whose answer has no tokens."""

    demand: Demand

    @property
    def usage(self) -> Usage:
        num = self.demand.num_prompt
        return Usage(prompt_tokens=num, completion_tokens=0, total_tokens=num)


P = TypeVar("P", bound=Metered)


class Meter:
    def __init__(
        self, settings: Settings, db: Database, limiter: Limiter, metrics: Metrics, clock: Clock
    ) -> None:
        self._settings = settings
        self._db = db
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self._num_open = 0
        self._recorder = Recorder(self._write)
        self._reading = threading.Lock()
        self._version = 0
        self.books = self._read_books({})
        if isinstance(limiter, LocalLimiter):
            self._remember_the_day(limiter)

    def start(self) -> None:
        """From now on usage is written, and limits that others changed are read, by itself."""
        self._recorder.start()

    async def close(self) -> None:
        await run_sync(self._recorder.close)
        await self._limiter.close()

    def flush(self) -> None:
        """Brings the database and this process to the same state. Call it in a thread."""
        self._recorder.flush()

    async def admit(
        self,
        request: Request,
        caller: Caller,
        prepare: Callable[[], P],
        *,
        at_once: bool = False,
    ) -> Admission[P]:
        """A place for a request, with what `prepare`, called in a thread or `at_once`, made of it.

        Raises TooMany (429) for a limit or a budget, and Unavailable where too many are open.
        """
        if self._num_open >= self._settings.max_open_requests:
            raise Unavailable(
                "The server has as many open requests as it can work on (max_open_requests). "
                "Try again in a moment.",
                code="overloaded",
                headers={"retry-after": "1"},
            )
        self._num_open += 1
        try:
            prepared = prepare() if at_once else await run_sync(prepare)
            draws, charges = self._asked(caller, prepared.demand)
            verdict = await self._limiter.take(draws, charges)
            pools = [draw.pool for draw in draws]
            request.scope["state"]["reply_headers"] = wording.headers(pools, verdict.levels)
            if verdict.refused is not None:
                raise self._refusal(caller, prepared.demand, draws, charges, verdict)
        except BaseException:
            self._num_open -= 1
            raise
        return Admission(self, caller, prepared, draws, charges)

    async def done(self, admission: Admission[P], used: Usage | None) -> None:
        """The end of a request, answered or (None) not at all."""
        self._num_open -= 1
        demand = admission.prepared.demand
        spent = self._record(admission, used) if used is not None else 0
        num_used = used.total_tokens if used is not None else 0
        back = [
            Draw(draw.pool, draw.amount - num_used)
            for draw in admission.draws
            if draw.pool.key.startswith("tpm:")
        ]
        held = {charge.budget: spent - charge.amount for charge in admission.charges}
        await self._limiter.settle(back, held)
        if used is not None:
            self._metrics.chat_tokens.labels("prompt").inc(used.prompt_tokens)
            if demand.kind == "completions":
                self._metrics.chat_tokens.labels("completion").inc(used.completion_tokens)

    def _record(self, admission: Admission[P], used: Usage) -> int:
        """Nano-dollars."""
        demand, caller = admission.prepared.demand, admission.caller
        num_cached = used.prompt_tokens_details.cached_tokens
        rates = self._rates(demand)
        money = rates.answer(used.prompt_tokens, num_cached, used.completion_tokens)
        now = int(self._clock.now())
        key = UsageKey(
            minute=now - now % 60,
            project_id=caller.project,
            key_id=caller.key_id,
            user_id=caller.user_id or "",
            model=demand.model,
            base=demand.base,
            kind=demand.kind,
            service_tier=demand.service_tier,
        )
        counts = Counts(
            num_requests=1,
            input_tokens=used.prompt_tokens,
            cached_tokens=num_cached,
            output_tokens=used.completion_tokens,
            input_nanos=money[0],
            cached_nanos=money[1],
            output_nanos=money[2],
        )
        spent = counts.nanos
        held = {charge.budget: spent for charge in admission.charges}
        self._recorder.add(key, counts, held)
        return spent

    def _asked(self, caller: Caller, demand: Demand) -> tuple[list[Draw], list[Charge]]:
        num_tokens = demand.num_prompt + demand.num_asked
        amounts = {"rpm": 1, "rpd": 1, "tpm": num_tokens}
        pools = self.books.pools(caller.project, demand.base)
        draws = [Draw(pool, amounts[wording.kind_of(pool)]) for pool in pools]
        budgets = self.books.budgets.both(caller.project, caller.key_id)
        if not budgets:
            return draws, []
        if isinstance(self._limiter, LocalLimiter) and self._db.version() != self._version:
            # Another process or a job has written since; in Redis, its money is held for a while.
            self.books = self._read_books({})
            budgets = self.books.budgets.both(caller.project, caller.key_id)
        # The dearest that it can become: nothing of the prompt cached, the longest answer.
        cost = sum(self._rates(demand).answer(demand.num_prompt, 0, demand.num_answer))
        month = month_of(int(self._clock.now()))
        return draws, [Charge(f"{owner}:{month}", nanos, cost) for owner, nanos in budgets]

    def _refusal(
        self,
        caller: Caller,
        demand: Demand,
        draws: list[Draw],
        charges: list[Charge],
        verdict: Verdict,
    ) -> TooMany:
        number = verdict.refused
        assert number is not None
        limit = wording.kind_of(draws[number].pool) if number < len(draws) else "spending"
        self._metrics.limited.labels(limit).inc()
        if number < len(draws):
            return wording.rate_limited(
                draws[number].pool,
                verdict.levels[number],
                draws[number].amount,
                model=demand.model,
                organization=self._settings.organization,
                project=caller.project,
            )
        charge = charges[number - len(draws)]
        return wording.quota_exceeded(
            "key" if charge.budget.startswith(caller.key_id) else "project",
            limit=to_dollars(charge.limit),
            spent=to_dollars(self.books.spent.get(charge.budget, 0)),
            cost=to_dollars(charge.amount),
        )

    def _rates(self, demand: Demand) -> Rates:
        return rates_of(self._settings.prices, demand.base, tuned=demand.tuned)

    def _write(self, rows: Rows, held: Held) -> None:
        if rows:
            with self._db.write() as conn:
                usage.add(conn, rows)
        try:
            self.books = self._read_books(held)
        except TunesmithError as error:
            # Limits as they were; the money stays held, so no budget is passed by that.
            log.warning("limits were not read anew: %s", error.message)

    def _read_books(self, booked: Held) -> Books:
        """What is written down takes the place of what was held for it, and no older sum after."""
        with self._reading:
            self._version = self._db.version()
            books = read_books(self._db, self._settings, int(self._clock.now()))
            self._limiter.book(books.spent, booked)
        return books

    def _remember_the_day(self, limiter: LocalLimiter) -> None:
        """A restart does not give a day's requests anew."""
        with self._db.read() as conn:
            found = usage.requests_since(conn, int(self._clock.now()) - DAY_S)
        limiter.seed(
            (pool, num_requests)
            for (project_id, base), num_requests in found.items()
            for pool in self.books.pools(project_id, base)
            if wording.kind_of(pool) == "rpd"
        )


@dataclass(frozen=True)
class Admission(Generic[P]):
    """A request that has passed; left as a context manager, it is accounted for."""

    meter: Meter
    caller: Caller
    prepared: P
    draws: list[Draw]
    charges: list[Charge]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        used = self.prepared.usage
        answered = error is None or used.completion_tokens > 0
        await self.meter.done(self, used if answered else None)
