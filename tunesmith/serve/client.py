"""The API's end of the engine's socket: asyncio, no torch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from tunesmith.errors import EngineUnavailable, TunesmithError
from tunesmith.serve.protocol import (
    MAX_LINE_BYTES,
    Delta,
    Done,
    EmbedRequest,
    GenRequest,
    ScoreRequest,
    TokenLogprob,
    decode_line,
    encode_line,
    error_from_wire,
    pass_to_wire,
)

T = TypeVar("T")

GONE = "The engine went away while answering."
RETRY_PAUSE_S = 0.05
# Tokens of a choice, and alternatives to them, that may wait for who asked. Who is this far behind
# does not read: the answer is cancelled.
MAX_UNREAD = 200_000
# Inputs of one line: their vectors, written out, stay below the length of a line.
EMBED_AT_ONCE = 16
# Of an answer by one line: the scores of a long text with the alternatives to each of its tokens.
MAX_ANSWER_BYTES = 16 * MAX_LINE_BYTES


class EngineClient:
    """Talks to the engine at `socket`.

    Every call raises EngineUnavailable where there is no engine, after trying to connect for
    `connect_s` seconds: an engine that is just starting is waited for, briefly.
    """

    def __init__(self, socket: Path, *, connect_s: float = 1.0) -> None:
        self._socket = socket
        self._connect_s = connect_s
        self._line: Line | None = None
        self._asking: set[asyncio.StreamWriter] = set()
        self._closed: EngineUnavailable | None = None

    def close(self, why: EngineUnavailable) -> None:
        """Ends all that is open and refuses what is new, both with `why`."""
        self._closed = why
        if self._line is not None:
            self._line.end_all(why)
        for writer in self._asking:
            writer.transport.abort()

    def generate(self, request: GenRequest) -> Generation:
        """The answer to `request`, which is on its way at once, streamed.

            async with client.generate(request) as answer:
                async for delta in answer: ...

        Leaving the block cancels what is still running.
        """
        return Generation(self, request)

    async def score(self, request: ScoreRequest) -> list[TokenLogprob]:
        """The log probability of each of the request's completion ids."""
        reply = await self._ask(pass_to_wire(request))
        return [TokenLogprob.from_wire(entry) for entry in reply["result"]]

    async def embed(self, request: EmbedRequest) -> list[list[float]]:
        """One vector of length 1 for each of the request's inputs."""
        vectors: list[list[float]] = []
        for start in range(0, len(request.inputs), EMBED_AT_ONCE):
            part = replace(request, inputs=request.inputs[start : start + EMBED_AT_ONCE])
            vectors += (await self._ask(pass_to_wire(part)))["result"]
        return vectors

    async def stats(self) -> dict[str, Any]:
        """Queue, running choices, resident models and their memory, counters."""
        return await self._ask({"verb": "stats"})

    async def ping(self) -> dict[str, Any]:
        """{"pid", "state"}: state is "ready" or "draining"."""
        return await self._ask({"verb": "ping"})

    async def drain(self) -> None:
        """Tells the engine to finish what runs, refuse what is new, and exit."""
        await self._ask({"verb": "drain"})

    async def unload(self, *, base_path: Path | None = None, adapter: str | None = None) -> bool:
        """Forgets a base (and its adapters) or an adapter by sha256; False if not loaded.

        Running answers keep what they use until they end.
        """
        path = None if base_path is None else str(base_path)
        reply = await self._ask({"verb": "unload", "base_path": path, "adapter": adapter})
        return bool(reply["unloaded"])

    async def preload(self, base_path: Path) -> None:
        """Loads a base, so that the first answer from it is quick; returns when it is there."""
        await self._ask({"verb": "preload", "base_path": str(base_path)})

    def line(self) -> Line:
        """The connection that answers share."""
        if self._line is None or not self._line.takes_more():
            self._line = Line(self)
        return self._line

    async def connect(self, how: Callable[[str], Awaitable[T]]) -> T:
        """What `how` makes of the socket's path, tried for a while."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_s
        while self._closed is None:
            try:
                return await how(str(self._socket))
            except OSError as error:
                if loop.time() >= deadline:
                    raise EngineUnavailable("The engine is not running.") from error
                await asyncio.sleep(RETRY_PAUSE_S)
        raise self._closed

    async def _ask(self, wire: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await self.connect(
            partial(asyncio.open_unix_connection, limit=MAX_ANSWER_BYTES)
        )
        self._asking.add(writer)
        try:
            writer.write(encode_line(wire))
            reply = decode_line(await reader.readuntil(b"\n"))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise self._closed or EngineUnavailable(GONE) from error
        finally:
            self._asking.discard(writer)
            writer.transport.abort()
        if "error" in reply:
            raise error_from_wire(reply)
        return reply


class Line(asyncio.Protocol):
    """The connection with all answers that are open at a time: made for the first, and kept until
    the engine says that it will take no more, or is gone. To make one takes as long as a short
    answer's first token."""

    def __init__(self, client: EngineClient) -> None:
        self.loop = asyncio.get_running_loop()
        self._open: dict[int, Generation] = {}
        self._num_begun = 0
        self._is_left = False
        self._unsent: list[bytes] = []  # what waits for the connection
        self._rest = b""  # of a line that has not come to its end
        self._transport: asyncio.Transport | None = None
        self._connecting = self.loop.create_task(self._connect(client))

    def takes_more(self) -> bool:
        """Whether other answers of this event loop may begin here."""
        return not self._is_left and self.loop is asyncio.get_running_loop()

    def begin(self, answer: Generation) -> int:
        """The answer's number."""
        self._num_begun += 1
        self._open[self._num_begun] = answer
        self.send({"verb": "generate", "id": self._num_begun, **answer.request.to_wire()})
        return self._num_begun

    def send(self, wire: dict[str, Any]) -> None:
        if self._transport is None:
            self._unsent.append(encode_line(wire))
        elif not self._transport.is_closing():
            self._transport.write(encode_line(wire))

    def leave(self, number: int) -> None:
        """Cancels an answer, if it has not ended."""
        if self._open.pop(number, None) is not None:
            self.send({"verb": "cancel", "id": number})
            self._close_if_left()

    async def _connect(self, client: EngineClient) -> None:
        connect = partial(self.loop.create_unix_connection, lambda: self)
        try:
            await client.connect(connect)
        except EngineUnavailable as error:
            self.end_all(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"".join(self._unsent))
        self._close_if_left()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._read(json.loads(line))
        self._close_if_left()

    def connection_lost(self, error: Exception | None) -> None:
        self.end_all(EngineUnavailable(GONE))

    def _read(self, wire: Any) -> None:
        if isinstance(wire, dict):
            self._is_left = True
            if "error" in wire:
                self.end_all(error_from_wire(wire))
            return
        for number, *news in wire:
            answer = self._open.get(number)
            if answer is None:
                continue  # it was left when these were on their way
            if not isinstance(news[0], dict):
                answer.add(Delta.from_wire(news))
                continue
            del self._open[number]
            failed = "error" in news[0]
            answer.finish(error_from_wire(news[0]) if failed else Done.from_wire(news[0]))

    def end_all(self, error: TunesmithError) -> None:
        self._is_left = True
        for answer in self._open.values():
            answer.finish(type(error)(error.message))
        self._open.clear()
        self._close_if_left()

    def _close_if_left(self) -> None:
        if self._is_left and not self._open:
            self._connecting.cancel()
            if self._transport is not None:
                # abort, not close: bytes still unsent must not keep a cancelled request alive.
                self._transport.abort()


class Generation:
    """One answer on its way: an async iterator of `Delta`; `done` is set once it has ended.

    News that wait to be read become one delta a choice, so who is late has less to do. Raises what
    the engine refused the request with (InvalidRequest, BaseModelError, AdapterError, EngineError),
    or EngineUnavailable if the engine is overloaded, draining, or goes away.
    """

    def __init__(self, client: EngineClient, request: GenRequest) -> None:
        self.request = request
        self.done: Done | None = None
        self._closed = False
        self._waiting: dict[int, Delta] = {}
        self._end: Done | TunesmithError | None = None
        self._news: asyncio.Future[None] | None = None  # to be set when there are some
        self._max_unread = MAX_UNREAD // (1 + (request.top_logprobs or 0))
        self._line = client.line()
        self._number = self._line.begin(self)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        if self._closed:
            raise StopAsyncIteration
        while not self._waiting:
            if self._end is not None:
                self.close()
                if isinstance(self._end, Done):
                    self.done = self._end
                    raise StopAsyncIteration
                raise self._end
            self._news = self._line.loop.create_future()
            try:
                await self._news
            except BaseException:
                self.close()
                raise
        return self._waiting.pop(next(iter(self._waiting)))

    def stop(self, index: int) -> None:
        """Ends one choice early; no more deltas of it are computed."""
        if self._end is None:
            self._line.send({"verb": "stop", "id": self._number, "index": index})

    def close(self) -> None:
        """Cancels what is still running. Safe to call twice."""
        self._closed = True
        self._line.leave(self._number)

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # What follows is called by the line.

    def add(self, delta: Delta) -> None:
        held = self._waiting.get(delta.index)
        if held is None:
            self._waiting[delta.index] = delta
        else:
            held.extend(delta)
            if len(held.token_ids) > self._max_unread:
                self._waiting.clear()
                self.finish(EngineUnavailable("The answer was cancelled: nobody read it."))
                self._line.leave(self._number)
        self._wake()

    def finish(self, end: Done | TunesmithError) -> None:
        self._end = end
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
