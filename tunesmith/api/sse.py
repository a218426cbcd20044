"""Streams of server-sent events, and clients that hang up."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunesmith.api.failures import translate
from tunesmith.errors import TunesmithError

log = logging.getLogger("tunesmith.api")

T = TypeVar("T")


async def disconnected(receive: Receive) -> None:
    """Returns when the client has hung up. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def closing_after(items: AsyncGenerator[Any, None], work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, with `items`, which it reads, closed whatever happens."""
    async with aclosing(items):
        return await work


async def begun(items: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """The same items, after the first has come; raises what came in its place."""
    try:
        first = await anext(items)
    except StopAsyncIteration:
        return items

    async def all_items() -> AsyncIterator[T]:
        yield first
        async for item in items:
            yield item

    return all_items()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled (ClientDisconnect) when the client hangs up."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


class EventStream(Response):
    """Sends each item as an event, then [DONE]; an error on the way becomes the last event.

    `items`, `closing` after it, and at last `within`, are closed when all is sent or the client
    hangs up, which ends whatever they stand for.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        items: AsyncGenerator[bytes, None],
        *,
        closing: AsyncGenerator[Any, None],
        within: AsyncExitStack,
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        # Proxies that buffer would turn a stream into a wait.
        self.headers["x-accel-buffering"] = "no"
        self._items = items
        self._closing = closing
        self._within = within

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._within, aclosing(self._closing), aclosing(self._items):
            # The answer has begun: nobody is left to hear of a hang-up.
            with suppress(ClientDisconnect):
                await while_connected(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for item in self._items:
                await self._send_event(send, item)
            await self._send_event(send, b"[DONE]")
        except TunesmithError as error:
            log.warning("answer broken off: %s", error.message)
            await self._send_event(send, json.dumps(translate(error).body()).encode())
        await send({"type": "http.response.body", "body": b""})

    async def _send_event(self, send: Send, data: bytes) -> None:
        body = b"data: " + data + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})
