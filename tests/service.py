"""The API over a data directory of its own, every answer of it held to the published schemas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from openai import OpenAI
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.contract.spec import check
from tunesmith.api.app import create_app
from tunesmith.bases import EMBEDDED_NAME, BaseInfo, describe, embedded_directory
from tunesmith.config import Settings
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import Database, open_database
from tunesmith.store.repo import bases, keys

BASE = EMBEDDED_NAME
KEY = "sk-test-" + "k" * 40
ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


class Checked:
    """Passes requests to `app` and its answers through the contract's check."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = bytearray()

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, watch)
        if start:
            headers = {key.decode(): value.decode() for key, value in start["headers"]}
            check(scope["method"], scope["path"], start["status"], headers, bytes(body))


@cache
def embedded() -> BaseInfo:
    return describe(embedded_directory(), BASE, SystemClock())


@dataclass(frozen=True)
class Service:
    settings: Settings
    db: Database
    blobs: LocalBlobs
    app: ASGIApp
    http: TestClient
    """Sends the key; httpx's interface."""

    @property
    def client(self) -> OpenAI:
        """The official client, in process."""
        return OpenAI(
            api_key=KEY,
            base_url="http://testserver/v1",
            http_client=self.http,  # type: ignore[arg-type]
            max_retries=0,
        )

    def anonymous(self) -> TestClient:
        return TestClient(self.app, raise_server_exceptions=False)


def reopened(service: Service, **overrides: Any) -> Service:
    """The same data directory, served with other settings and by a process of its own, as it were:
    it shares the database and the engine, and nothing in memory."""
    settings = service.settings.model_copy(update=overrides)
    app = Checked(create_app(settings))
    http = TestClient(app, headers=service.http.headers)
    return Service(settings, service.db, service.blobs, app, http)


@contextmanager
def engine_of(data: Path) -> Iterator[None]:
    """The engine of a data directory as a process, until the end of the block."""
    environment = {**os.environ, "TUNESMITH_DATA": str(data), "TUNESMITH_ENGINE_THREADS": "1"}
    command = [sys.executable, "-m", "tunesmith.serve"]
    with (
        (data / "engine.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log) as engine,
    ):
        assert engine.stdout is not None
        assert json.loads(engine.stdout.readline())["ready"]
        yield
        engine.terminate()


def make_service(data: Path, **overrides: Any) -> Service:
    """A service with one key and the embedded base under its name and the alias gpt-4o-mini."""
    settings = Settings(data=data, **overrides)
    db = open_database(settings.data_dir)
    pepper = keys.load_pepper(settings.data_dir)
    with db.write() as conn:
        keys.create(conn, pepper, SystemRng(), name="test", now=0, secret=KEY)
        bases.insert(conn, embedded())
        bases.set_alias(conn, "gpt-4o-mini", BASE, now=0)
    app = Checked(create_app(settings))
    http = TestClient(app, headers={"authorization": f"Bearer {KEY}"})
    return Service(settings, db, LocalBlobs(settings.blobs_dir), app, http)
