"""The engine that has vLLM compute: the same requests and answers as `LocalEngine`.

Lives on the server's event loop. What vLLM does itself (batching, cache, sampling) is left to it;
here are the bases and adapters it needs, its restarts, deadlines, and the length of the queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tunesmith.errors import EngineError, TunesmithError
from tunesmith.model.adapter_files import read_spec
from tunesmith.serve.protocol import (
    AdapterRef,
    Counters,
    DeadlineExceeded,
    Done,
    Draining,
    GenRequest,
    InvalidRequest,
    Overloaded,
    PassRequest,
    ScoreRequest,
    Stats,
)
from tunesmith.serve.server import IsLeft, Reply
from tunesmith.serve.vllm import server as vllm_server
from tunesmith.serve.vllm import wire
from tunesmith.serve.vllm.server import VllmServer
from tunesmith.serve.vllm.servers import Options, Servers

log = logging.getLogger(__name__)

Deliver = Callable[[list[tuple[Any, Any]]], None]


@dataclass(eq=False)
class Run:
    """A request on its way; times are of the monotonic clock, seconds."""

    request: GenRequest
    arrived_s: float
    task: asyncio.Task[None] | None = None
    choices: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    started_s: float | None = None
    first_token_s: float | None = None
    num_generated: int = 0
    num_cached: int = 0


class VllmEngine:
    """Answers requests with vLLM. Methods and callbacks are those of `LocalEngine`."""

    def __init__(self, options: Options, deliver: Deliver) -> None:
        self._options = options
        self._deliver = deliver
        self._servers = Servers(options, self._spawn)
        self._open: set[Run] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._counters = Counters()
        self._on_idle: Callable[[], object] | None = None
        self._draining = False

    def start(self) -> None:
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request
        self._servers.start()

    def close(self) -> None:
        """Ends what runs, and tells the servers that are ours to end."""
        for task in list(self._tasks):
            task.cancel()
        self._servers.terminate()

    @property
    def state(self) -> str:
        """ "starting" while a server elsewhere does not answer; ours start when they are needed."""
        return "ready" if self._servers.is_reached else "starting"

    def submit(self, request: GenRequest) -> Run:
        run = Run(request, time.monotonic())
        run.task = self._spawn(self._answer(run))
        return run

    def cancel(self, run: Run) -> None:
        if run.task is not None:
            run.task.cancel()

    def stop(self, run: Run, index: int) -> None:
        if choice := run.choices.get(index):
            choice.cancel()

    def drain(self, on_idle: Callable[[], object]) -> None:
        self._draining, self._on_idle = True, on_idle
        self._tell_idle()

    def compute(self, request: PassRequest, done: Reply, is_left: IsLeft) -> None:
        self._reply(self._score(request), done)

    def preload(self, base: Path, done: Callable[[TunesmithError | None], object]) -> None:
        async def load() -> None:
            await self._servers.get(base, 0)

        self._reply(load(), done)

    def unload(
        self, base: Path | None, adapter: str | None, done: Callable[[bool], object]
    ) -> None:
        async def unload() -> bool:
            servers = list(self._servers.by_base.values())
            found = [await each.unload(adapter) for each in servers if adapter]
            dropped = base is not None and await self._servers.drop(base)
            return any(found) or dropped

        self._reply(unload(), done)

    def stats(self, done: Callable[[Stats], object]) -> None:
        waiting = sum(1 for run in self._open if run.first_token_s is None)
        servers = self._servers.by_base.items()
        bases = [
            {
                "path": str(path),
                "loaded": True,
                "leases": server.leases,
                "adapters": [
                    {"sha256": held.ref.sha256, "leases": held.leases} for held in server.adapters
                ],
            }
            for path, server in servers
        ]
        message = self._servers.message
        done(
            Stats(
                "draining" if self._draining else "starting" if message else "ready",
                num_running=len(self._open) - waiting,
                num_waiting=waiting,
                bases=bases,
                counters=self._counters,
                message=message,
            )
        )

    # What follows is the way of one request.

    async def _answer(self, run: Run) -> None:
        request = run.request
        try:
            self._admit(run)
            async with asyncio.timeout(request.deadline_s):
                try:
                    await self._generate(run)
                except (wire.NotLoaded, wire.Gone) as error:
                    if run.num_generated or not await self._may_try_again(request, error):
                        raise
                    await self._generate(run)
            self._deliver([(run, self._done(run))])
        except TimeoutError:
            self._deliver([(run, DeadlineExceeded.of(request, run.num_generated))])
        except TunesmithError as error:
            self._deliver([(run, error)])
        except Exception as error:
            log.exception("an answer from vLLM")
            text = f"The engine failed while computing: {type(error).__name__}."
            self._deliver([(run, EngineError(text))])
        finally:
            self._open.discard(run)
            self._counters.num_completion_tokens += run.num_generated
            self._counters.num_cached_tokens += run.num_cached
            self._tell_idle()

    def _admit(self, run: Run) -> None:
        if self._draining:
            raise Draining("The engine is shutting down. Try again soon.")
        if sum(1 for other in self._open if not other.num_generated) >= self._options.max_queue:
            raise Overloaded("Too many requests are waiting. Try again soon.")
        self._open.add(run)
        self._counters.num_requests += 1
        self._counters.num_prompt_tokens += len(run.request.prompt_ids)

    async def _generate(self, run: Run) -> None:
        """Every choice as a request of its own; the prompt is shared by vLLM's cache."""
        request = run.request
        async with self._lease(request.base_path, request.adapter) as (server, model):
            run.started_s = time.monotonic()
            run.choices = {
                index: self._spawn(self._choose(run, index, server, model))
                for index in range(request.n)
            }
            try:
                when = asyncio.FIRST_EXCEPTION
                ended, _ = await asyncio.wait(run.choices.values(), return_when=when)
            finally:
                for choice in run.choices.values():
                    choice.cancel()
            for choice in ended:
                if not choice.cancelled() and (error := choice.exception()):
                    raise error

    async def _choose(self, run: Run, index: int, server: VllmServer, model: str) -> None:
        body = wire.completion(run.request, index, model, server.max_positions)
        try:
            async with server.client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise wire.error_of(answer.status_code, await answer.aread())
                async for chunk in wire.events(answer.aiter_bytes()):
                    self._tell(run, index, chunk)
        except httpx2.HTTPError as error:
            raise vllm_server.gone(error) from error

    def _tell(self, run: Run, index: int, chunk: dict[str, Any]) -> None:
        details = (chunk.get("usage") or {}).get("prompt_tokens_details") or {}
        run.num_cached = max(run.num_cached, details.get("cached_tokens") or 0)
        delta = wire.delta_of(chunk, index, run.request.top_logprobs)
        if delta is None:
            return
        if run.first_token_s is None:
            run.first_token_s = time.monotonic()
        run.num_generated += len(delta.token_ids)
        self._deliver([(run, delta)])

    def _done(self, run: Run) -> Done:
        now = time.monotonic()
        return Done(
            prompt_tokens=len(run.request.prompt_ids),
            completion_tokens=run.num_generated,
            queue_s=(run.started_s or now) - run.arrived_s,
            first_token_s=(run.first_token_s or now) - run.arrived_s,
            cached_tokens=run.num_cached,
        )

    async def _score(self, request: PassRequest) -> Any:
        if not isinstance(request, ScoreRequest):
            raise InvalidRequest(
                "vLLM was started to generate text, so it gives no embeddings. Serve them with "
                "`--engine local`."
            )
        if self._draining:
            raise Draining("The engine is shutting down. Try again soon.")
        async with self._lease(request.base_path, request.adapter) as (server, model):
            body = wire.score(request, model)
            answer = json.loads(await server.post("/v1/completions", body))
        return wire.scores_of(answer, request)

    @asynccontextmanager
    async def _lease(
        self, base: Path, adapter: AdapterRef | None
    ) -> AsyncIterator[tuple[VllmServer, str]]:
        rank = (await asyncio.to_thread(read_spec, adapter.path)).rank if adapter else 0
        server = await self._servers.get(base, rank)
        async with server.lease(adapter) as model:
            yield server, model

    async def _may_try_again(self, request: GenRequest, error: TunesmithError) -> bool:
        """Whether a server that ended is replaced, or one that lost an adapter is given it anew."""
        if isinstance(error, wire.Gone):
            return await self._servers.is_replaced(request.base_path)
        server = self._servers.by_base.get(request.base_path)
        return (
            server is not None
            and request.adapter is not None
            and server.forget(request.adapter.sha256)
        )

    def _reply(self, work: Coroutine[Any, Any, Any], done: Reply) -> None:
        async def answer() -> None:
            try:
                result = await work
            except TunesmithError as error:
                result = error
            done(result)

        self._spawn(answer())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell_idle(self) -> None:
        if self._on_idle is not None and not self._open:
            tell, self._on_idle = self._on_idle, None
            tell()
