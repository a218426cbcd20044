"""Answers that depend on the database alone, given again for as long as nobody has written to it.

Clients poll: a job's page is asked for a hundred times for each time that it changes. The database
counts commits, those of other processes too, so an answer is known to be as good as a fresh one
without reading anything else. Requests for the same answer that come while it is being made wait
for it, if nothing was written since they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Of routes.py, by path: GETs whose answer is a function of the database and the project.
KEPT = frozenset(
    {
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/fine_tuning/jobs",
        "/v1/fine_tuning/jobs/{job_id}",
        "/v1/fine_tuning/jobs/{job_id}/events",
        "/v1/fine_tuning/jobs/{job_id}/checkpoints",
        "/v1/models",
        "/v1/models/{name:path}",
    }
)
MAX_ANSWER_BYTES = 64 << 10
MAX_TOTAL_BYTES = 32 << 20

Key = tuple[str | None, str, bytes]


@dataclass(frozen=True)
class Answer:
    start: Message
    body: bytes
    route: Any

    async def give(self, scope: Scope, send: Send) -> None:
        scope["route"] = self.route
        await send({**self.start, "headers": list(self.start["headers"])})
        await send({"type": "http.response.body", "body": self.body})


class KeptAnswers:
    """Belongs to the event loop's thread; `version` counts what was written."""

    def __init__(self, app: ASGIApp, version: Callable[[], int]) -> None:
        self.app = app
        self._version = version
        self._of = -1
        self._num_bytes = 0
        self._answers: dict[Key, Answer] = {}
        self._making: dict[tuple[int, Key], asyncio.Future[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a GET of a path in KEPT. The gate has let it pass already."""
        version = self._version()
        if version != self._of:
            self._answers.clear()
            self._num_bytes, self._of = 0, version
        key = (scope["state"]["caller"].project_id, scope["path"], scope["query_string"])
        kept = self._answers.get(key)
        if kept is None and (making := self._making.get((version, key))) is not None:
            await making
            kept = self._answers.get(key) if self._of == version else None
        if kept is not None:
            await kept.give(scope, send)
        else:
            await self._make(version, key, scope, receive, send)

    async def _make(
        self, version: int, key: Key, scope: Scope, receive: Receive, send: Send
    ) -> None:
        seen: list[Message] = []

        async def watch(message: Message) -> None:
            # Whoever is above adds the headers of one request to the list itself.
            seen.append({**message, "headers": list(message.get("headers", ()))})
            await send(message)

        done = self._making[version, key] = asyncio.get_running_loop().create_future()
        try:
            await self.app(scope, receive, watch)
            self._keep(version, key, seen, scope)
        finally:
            if self._making.get((version, key)) is done:
                del self._making[version, key]
            done.set_result(None)

    def _keep(self, version: int, key: Key, seen: list[Message], scope: Scope) -> None:
        """What was read before a write that has happened since is not kept."""
        if version != self._of or version != self._version():
            return
        body = b"".join(message.get("body", b"") for message in seen[1:])
        room = self._num_bytes + len(body) <= MAX_TOTAL_BYTES
        if seen[0].get("status") == 200 and len(body) <= MAX_ANSWER_BYTES and room:
            self._answers[key] = Answer(seen[0], body, scope.get("route"))
            self._num_bytes += len(body)
