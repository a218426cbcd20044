"""/v1/tunesmith/events: what happens to jobs, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunesmith.api import news
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import After, Services, Svc
from tunesmith.api.sse import while_connected
from tunesmith.jobs import commands
from tunesmith.store.repo import events

router = APIRouter(prefix="/v1/tunesmith")

# Proxies close what is silent for a minute.
HEARTBEAT_S = 15.0
# The key is checked when a stream begins: one that was revoked hears nothing after this time.
MAX_STREAM_S = 900.0
RETRY_MS = 1000


@router.get("/events", response_class=Response)
async def stream_events(
    svc: Svc,
    caller: CallerDep,
    job: Annotated[str | None, Query()] = None,
    after: After = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Events of the project's jobs, or of one, from now on or after an event; with each, its
    job's state."""
    began_after = await run_sync(_number, svc, caller.project, job, last_event_id or after)
    return LiveStream(frames(svc, caller.project, job, began_after))


def _number(svc: Services, project_id: str, job_id: str | None, after: str | None) -> int | None:
    """The number of the event to go on after. Raises BadRequest, and NotFound for the job."""
    with svc.db.read() as conn:
        if job_id is not None:
            commands.get_job(conn, project_id, job_id)
        return None if after is None else events.number_of(conn, after)


async def frames(
    svc: Services, project_id: str, job_id: str | None, after: int | None
) -> AsyncGenerator[bytes, None]:
    """What was missed since `after`, once and in order, then what comes; ends with the feed."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + MAX_STREAM_S
    async with svc.feed.listen() as (place, queue):
        yield f"retry: {RETRY_MS}\n\n".encode()
        while after is not None:
            part = await run_sync(news.missed, svc.db, project_id, job_id, after, place.number)
            after = None if part is None else part[0]
            if part is not None:
                yield part[1]
        yield await run_sync(news.states, svc.db, project_id, job_id, place)
        while loop.time() < ends_s:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    found = await queue.get()
            except TimeoutError:
                yield b":\n\n"
                continue
            if found is None:
                return
            if frame := found.of(job_id or project_id):
                yield frame


class LiveStream(Response):
    """Sends frames as they come, until they end or the client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, items: AsyncGenerator[bytes, None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        # Proxies that buffer would turn a stream into a wait.
        self.headers["x-accel-buffering"] = "no"
        self._items = items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._items):
            with suppress(ClientDisconnect):
                await while_connected(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for item in self._items:
            await send({"type": "http.response.body", "body": item, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
