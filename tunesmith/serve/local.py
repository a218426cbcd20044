"""The engine: one thread that computes, fed from other threads through an inbox.

Whatever arrives (requests, cancellations, loaded models) is a callback in the inbox and runs
between two passes, so a cancelled choice is gone before the next one. Bases take turns, a pass
each.
"""

from __future__ import annotations

import heapq
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tunesmith.errors import EngineError, TunesmithError
from tunesmith.model import memory
from tunesmith.serve import passes
from tunesmith.serve.grammar import Constraint, Grammars
from tunesmith.serve.lane import Lane, Outcome
from tunesmith.serve.protocol import (
    Counters,
    DeadlineExceeded,
    Done,
    Draining,
    GenRequest,
    InvalidRequest,
    Overloaded,
    PassRequest,
    Stats,
)
from tunesmith.serve.residents import BaseEntry, Lease, Residents
from tunesmith.serve.server import Deliver, IsLeft, Message, Reply
from tunesmith.serve.ticket import Ticket, choices_of, misfit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    device: str = "auto"
    memory_bytes: int = 0
    """0: half of the machine's memory."""
    max_batch: int = 32
    """Choices computed at the same time."""
    max_queue: int = 256
    """Requests that may wait."""
    num_threads: int = 1
    """CPU threads of a large pass; small ones use one."""
    int8: bool = False
    """Large weights in 8 bits, on a CPU."""


class LocalEngine:
    """The `Engine` of the bases and adapters on this machine.

    `deliver` gets what each pass brought, on the engine's thread: for every ticket deltas, then
    `Done` or an error, then nothing more. All public methods may be called from any thread;
    callbacks they take are called on the engine's.
    """

    state = "ready"

    def __init__(self, limits: Limits, deliver: Deliver) -> None:
        self._limits = limits
        self._deliver = deliver
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        best = "cuda" if torch.cuda.is_available() else "cpu"
        device = best if limits.device == "auto" else limits.device
        self._residents = Residents(
            budget_bytes=limits.memory_bytes or memory.engine_bytes(device),
            device=device,
            int8=limits.int8,
            post=self._inbox.put,
            other_bytes=lambda: sum(lane.num_bytes for lane in self._lanes.values()),
        )
        self._lanes: dict[BaseEntry, Lane] = {}
        self._grammars = Grammars(self._inbox.put)
        self._passes = passes.Passes(limits.num_threads)
        self._open: set[Ticket] = set()
        self._deadlines: list[tuple[float, int, Ticket]] = []  # a heap
        self._counters = Counters()
        self._draining = False
        self._on_idle: Callable[[], object] | None = None  # to be called once
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the pass it is in; open requests get no more messages."""

        def close() -> None:
            self._closing = True

        self._inbox.put(close)
        self._thread.join()

    def submit(self, request: GenRequest) -> Ticket:
        seed = secrets.randbits(63) if request.seed is None else request.seed
        ticket = Ticket(request, seed, time.monotonic())
        self._inbox.put(lambda: self._take(ticket))
        return ticket

    def compute(self, request: PassRequest, done: Reply, is_left: IsLeft) -> None:
        self._inbox.put(lambda: self._take_pass(request, done, is_left))

    def cancel(self, ticket: Ticket) -> None:
        self._inbox.put(lambda: self._end(ticket))

    def stop(self, ticket: Ticket, index: int) -> None:
        self._inbox.put(lambda: self._stop(ticket, index))

    def drain(self, on_idle: Callable[[], object]) -> None:
        def drain() -> None:
            self._draining, self._on_idle = True, on_idle

        self._inbox.put(drain)

    def preload(self, base: Path, done: Callable[[TunesmithError | None], object]) -> None:
        def loaded(result: Lease | TunesmithError) -> None:
            if isinstance(result, Lease):
                self._residents.release(result)
            done(result if isinstance(result, TunesmithError) else None)

        self._inbox.put(lambda: self._residents.acquire(base, None, loaded))

    def unload(
        self, base: Path | None, adapter: str | None, done: Callable[[bool], object]
    ) -> None:
        def unload() -> None:
            unloaded = base is not None and self._residents.unload_base(base)
            if adapter is not None:
                unloaded = self._residents.unload_adapter(adapter) or unloaded
            done(unloaded)

        self._inbox.put(unload)

    def stats(self, done: Callable[[Stats], object]) -> None:
        self._inbox.put(lambda: done(self._stats()))

    # Everything below runs on the engine's thread.

    def _run(self) -> None:
        with torch.inference_mode():
            while not self._closing:
                self._read_inbox(wait=not self._lanes and not self._passes)
                self._end_overdue()
                for base, lane in list(self._lanes.items()):
                    self._pass(base, lane)
                    if lane.empty:
                        self._lanes.pop(base, None)
                if self._passes and (ended := self._passes.step()):
                    work, result = ended
                    self._residents.release(work.lease)
                    work.reply(result)
                self._residents.feed()
                if self._on_idle is not None and not self._open and not self._passes:
                    # After the last message has been delivered.
                    tell = self._on_idle
                    self._on_idle = None
                    tell()

    def _read_inbox(self, wait: bool) -> None:
        """Runs what has arrived; with `wait` also what comes next, or until a deadline."""
        while wait or not self._inbox.empty():
            left_s = max(self._deadlines[0][0] - time.monotonic(), 0) if self._deadlines else None
            try:
                self._inbox.get(timeout=left_s if wait else None)()
            except queue.Empty:
                return
            except Exception:
                log.exception("the engine's inbox")
            wait = False

    def _end_overdue(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= time.monotonic():
            *_, ticket = heapq.heappop(self._deadlines)
            self._fail(ticket, DeadlineExceeded.of(ticket.request, ticket.num_generated))

    def _pass(self, base: BaseEntry, lane: Lane) -> None:
        num_running = sum(other.num_running for other in self._lanes.values())
        try:
            outcomes = lane.step(
                0 if self._residents.starving else self._limits.max_batch - num_running,
                fits=self._residents.make_room,
                alone=num_running == 0,
            )
        except Exception as error:
            # Out of memory, or a fault of ours: this base's answers end, the engine goes on.
            log.exception("a pass of the engine")
            problem = EngineError(f"The engine failed while computing: {type(error).__name__}.")
            failed = [ticket for ticket in self._open if self._lane_of(ticket) is lane]
            del self._lanes[base]
            for ticket in failed:
                self._fail(ticket, problem)
            return
        self._counters.num_passes += 1
        self._counters.num_preempted += lane.take_num_preempted()
        self._report(outcomes)

    def _report(self, outcomes: list[Outcome]) -> None:
        messages: list[tuple[Ticket, Message]] = []
        for choice, outcome in outcomes:
            ticket = choice.ticket
            if ticket.closed:  # another choice of it failed in this pass
                continue
            messages.append((ticket, outcome))
            if isinstance(outcome, TunesmithError):
                self._end(ticket)
                continue
            if ticket.first_token_s is None:
                ticket.first_token_s = time.monotonic()
            ticket.num_generated += len(outcome.token_ids)
            if outcome.finish_reason is not None:
                ticket.choices.remove(choice)
                if not ticket.choices:
                    messages.append((ticket, self._finish(ticket)))
        if messages:
            self._deliver(messages)

    def _take(self, ticket: Ticket) -> None:
        """Refuses a new request, or has what it needs loaded."""
        num_waiting = sum(1 for other in self._open if other.started_s is None)
        if self._draining:
            self._fail(ticket, Draining("The engine is shutting down. Try again soon."))
        elif num_waiting >= self._limits.max_queue:
            self._fail(ticket, Overloaded("Too many requests are waiting. Try again soon."))
        else:
            self._counters.num_requests += 1
            self._open.add(ticket)
            request = ticket.request
            if request.deadline_s is not None:
                deadline = ticket.arrived_s + request.deadline_s, id(ticket), ticket
                heapq.heappush(self._deadlines, deadline)
            self._residents.acquire(
                request.base_path, request.adapter, lambda result: self._enqueue(ticket, result)
            )

    def _enqueue(self, ticket: Ticket, result: Lease | TunesmithError) -> None:
        if isinstance(result, TunesmithError):
            self._fail(ticket, result)
            return
        if ticket.closed:  # cancelled while loading
            self._residents.release(result)
            return
        ticket.lease = result
        request, model = ticket.request, result.model
        if problem := misfit(request, model.vocab_size, model.max_positions):
            self._fail(ticket, problem)
            return
        if request.grammar is None:
            self._begin(ticket, result, None)
        else:
            self._grammars.compile(
                request, model.vocab_size, lambda made: self._begin(ticket, result, made)
            )

    def _begin(
        self, ticket: Ticket, lease: Lease, grammar: Constraint | InvalidRequest | None
    ) -> None:
        if isinstance(grammar, InvalidRequest):
            self._fail(ticket, grammar)
            return
        if ticket.closed:  # cancelled while the grammar was compiled
            return
        if lease.base not in self._lanes:
            limits = self._limits
            self._lanes[lease.base] = Lane(
                lease.base, limits.max_batch, limits.num_threads, self._residents.kept
            )
        ticket.choices = choices_of(ticket, lease, grammar)
        for choice in ticket.choices:
            self._lanes[lease.base].add(choice)
        self._counters.num_prompt_tokens += len(ticket.request.prompt_ids)

    def _take_pass(self, request: PassRequest, done: Reply, is_left: IsLeft) -> None:
        """Refuses a pass, or queues it once what it needs is loaded."""

        def loaded(result: Lease | TunesmithError) -> None:
            if isinstance(result, TunesmithError):
                done(result)
            elif problem := passes.misfit(request, result.model):
                self._residents.release(result)
                done(InvalidRequest(problem))
            else:
                self._passes.add(passes.Pass(request, result, done, is_left))

        if self._draining:
            done(Draining("The engine is shutting down. Try again soon."))
        elif len(self._passes) >= self._limits.max_queue:
            done(Overloaded("Too many requests are waiting. Try again soon."))
        elif not request.inputs:
            done([])
        else:
            self._counters.num_requests += 1
            self._counters.num_prompt_tokens += sum(map(len, request.inputs))
            self._residents.acquire(request.base_path, request.adapter, loaded)

    def _stop(self, ticket: Ticket, index: int) -> None:
        for choice in [choice for choice in ticket.choices if choice.draws.index == index]:
            ticket.choices.remove(choice)
            if lane := self._lane_of(ticket):
                lane.discard(choice)
            if not ticket.choices:
                self._deliver([(ticket, self._finish(ticket))])

    def _finish(self, ticket: Ticket) -> Done:
        now = time.monotonic()
        self._end(ticket)
        return Done(
            prompt_tokens=len(ticket.request.prompt_ids),
            completion_tokens=ticket.num_generated,
            queue_s=(ticket.started_s or now) - ticket.arrived_s,
            first_token_s=(ticket.first_token_s or now) - ticket.arrived_s,
            cached_tokens=ticket.num_cached,
        )

    def _fail(self, ticket: Ticket, error: TunesmithError) -> None:
        if not ticket.closed:
            self._end(ticket)
            self._deliver([(ticket, error)])

    def _end(self, ticket: Ticket) -> None:
        """Takes a request out of everything. Safe to call twice."""
        if ticket.closed:
            return
        ticket.closed = True
        self._open.discard(ticket)
        lane = self._lane_of(ticket)
        for choice in ticket.choices:
            if lane is not None:
                lane.discard(choice)
        ticket.choices = []
        self._counters.num_completion_tokens += ticket.num_generated
        self._counters.num_cached_tokens += ticket.num_cached
        if ticket.lease is not None:
            self._residents.release(ticket.lease)

    def _lane_of(self, ticket: Ticket) -> Lane | None:
        return self._lanes.get(ticket.lease.base) if ticket.lease else None

    def _stats(self) -> Stats:
        lanes = self._lanes.values()
        return Stats(
            "draining" if self._draining else "ready",
            num_running=sum(lane.num_running for lane in lanes),
            num_waiting=sum(1 for ticket in self._open if ticket.started_s is None),
            bases=self._residents.stats(),
            counters=self._counters,
            cache_bytes=sum(lane.num_bytes for lane in lanes),
            kept_bytes=self._residents.kept.num_bytes,
            model_bytes=self._residents.num_bytes,
            budget_bytes=self._residents.budget_bytes,
        )
