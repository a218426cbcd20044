"""The API's end of the engine's socket: asyncio, no torch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.errors import EngineUnavailable
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

RETRY_PAUSE_S = 0.05
# Inputs of one line: their vectors, written out, stay below the length of a line.
EMBED_AT_ONCE = 64


class EngineClient:
    """Talks to the engine at `socket`; holds no connection between calls.

    Every call raises EngineUnavailable where there is no engine, after trying to connect for
    `connect_s` seconds: an engine that is just starting is waited for, briefly.
    """

    def __init__(self, socket: Path, *, connect_s: float = 1.0) -> None:
        self._socket = socket
        self._connect_s = connect_s

    def generate(self, request: GenRequest) -> Generation:
        """The answer to `request`, streamed.

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
        reply = await self._ask(
            {
                "verb": "unload",
                "base_path": None if base_path is None else str(base_path),
                "adapter": adapter,
            }
        )
        return bool(reply["unloaded"])

    async def preload(self, base_path: Path) -> None:
        """Loads a base, so that the first answer from it is quick; returns when it is there."""
        await self._ask({"verb": "preload", "base_path": str(base_path)})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_s
        while True:
            try:
                return await asyncio.open_unix_connection(str(self._socket), limit=MAX_LINE_BYTES)
            except OSError as error:
                if loop.time() >= deadline:
                    raise EngineUnavailable("The engine is not running.") from error
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _ask(self, wire: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await self.connect()
        try:
            writer.write(encode_line(wire))
            return await read_reply(reader)
        finally:
            await close(writer)


class Generation:
    """One answer on its way: an async iterator of `Delta`; `done` is set once it has ended.

    Raises what the engine refused the request with (InvalidRequest, BaseModelError, AdapterError,
    EngineError), or EngineUnavailable if the engine is overloaded, draining, or goes away.
    """

    def __init__(self, client: EngineClient, request: GenRequest) -> None:
        self._client = client
        self._request = request
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._closed = False
        self.done: Done | None = None

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        if self._closed:
            raise StopAsyncIteration
        try:
            wire = await self._next_line()
        except BaseException:
            await self.aclose()
            raise
        if "done" in wire:
            self.done = Done.from_wire(wire)
            await self.aclose()
            raise StopAsyncIteration
        return Delta.from_wire(wire)

    async def stop(self, index: int) -> None:
        """Ends one choice early; no more deltas of it are computed."""
        if self._writer is not None and not self._closed:
            with contextlib.suppress(OSError):
                self._writer.write(encode_line({"stop": index}))
                await self._writer.drain()

    async def aclose(self) -> None:
        """Cancels what is still running. Safe to call twice."""
        self._closed = True
        writer, self._writer = self._writer, None
        if writer is not None:
            await close(writer)

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _next_line(self) -> dict[str, Any]:
        if self._reader is None:
            self._reader, self._writer = await self._client.connect()
            self._writer.write(encode_line({"verb": "generate", **self._request.to_wire()}))
        return await read_reply(self._reader)


async def read_reply(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        line = await reader.readuntil(b"\n")
    except (OSError, asyncio.IncompleteReadError) as error:
        raise EngineUnavailable("The engine went away while answering.") from error
    wire = decode_line(line)
    if "error" in wire:
        raise error_from_wire(wire)
    return wire


async def close(writer: asyncio.StreamWriter) -> None:
    # abort, not close: bytes still unsent must not keep a cancelled request alive.
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
