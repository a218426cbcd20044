"""vLLM as a test meets it: the recorded answers of a real server, or a real one that is recorded.

An exchange is known by its path and body. Recorded is what vLLM sent, byte by byte; nothing is made
up here, so a request that was never recorded is an error. `make conformance-vllm` records anew.
"""

from __future__ import annotations

import json
import lzma
import os
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from tunesmith.serve.vllm.server import Room, command, environment

RECORDED = Path(__file__).parent / "data" / "vllm" / "exchanges.jsonl.xz"
RESTARTS = RECORDED.with_name("restarts.jsonl.xz")
# Answers kept of one request; the same request gives others where it is random.
MAX_ANSWERS = 4
START_S = 600
# For a server of a few MB on a CPU, so that it starts sooner, and beside others.
SMALL = "--enforce-eager --max-num-seqs 32 --dtype float32 --gpu-memory-utilization 0.3"


class Exchanges:
    """An ASGI app that answers as vLLM did, or asks the vLLM behind `client` and writes it down."""

    def __init__(self, client: httpx2.AsyncClient | None = None) -> None:
        self._client = client
        self._kept: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._turn: dict[str, int] = defaultdict(int)
        self.missing: list[str] = []
        if client is None:
            self.load(RECORDED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        key = key_of(scope["method"], scope["path"], body)
        if self._client is not None:
            await self._forward(scope, body, key, receive, send)
            return
        kept = self._kept.get(key)
        if not kept:
            self.missing.append(key)
            await answer(send, 501, b"this request was never recorded")
            return
        exchange = kept[self._turn[key] % len(kept)]
        self._turn[key] += 1
        await answer(send, exchange["status"], exchange["answer"].encode())

    async def _forward(
        self, scope: Scope, body: bytes, key: str, receive: Receive, send: Send
    ) -> None:
        assert self._client is not None
        content = {"content-type": "application/json"} if body else None
        request = self._client.build_request(
            scope["method"], scope["path"], content=body, headers=content
        )
        found = await self._client.send(request)
        if len(self._kept[key]) < MAX_ANSWERS:
            text = found.content.decode()
            self._kept[key].append({"request": key, "status": found.status_code, "answer": text})
        await answer(send, found.status_code, found.content)

    def load(self, path: Path) -> None:
        with lzma.open(path, "rt") as lines:
            for exchange in map(json.loads, lines):
                self._kept[exchange["request"]].append(exchange)

    def save(self, path: Path = RECORDED) -> None:
        path.parent.mkdir(exist_ok=True)
        with lzma.open(path, "wt", preset=9) as file:
            for kept in self._kept.values():
                for exchange in kept:
                    file.write(json.dumps(exchange) + "\n")


def key_of(method: str, path: str, body: bytes) -> str:
    """What an exchange is found by; of a path on this machine only the last part."""
    given = json.loads(body) if body else None
    if given and "lora_path" in given:
        given["lora_path"] = Path(given["lora_path"]).name
    return f"{method} {path} {json.dumps(given, sort_keys=True)}"


async def answer(send: Send, status: int, body: bytes) -> None:
    """The body event by event, as it was streamed."""
    kind = b"text/event-stream" if body.startswith(b"data: ") else b"application/json"
    start: Message = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(b"content-type", kind)]})
    for event in body.split(b"\n\n"):
        end = b"\n\n" if kind.startswith(b"text") and event else b""
        await send({"type": "http.response.body", "body": event + end, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def serving(app: Exchanges) -> Iterator[str]:
    """The app behind a URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def real_server(python: Path, base: Path, directory: Path) -> Iterator[httpx2.AsyncClient]:
    """A vLLM started with the command and the environment that the engine starts it with; or, where
    `python` is a socket, the one that listens there."""
    if python.is_socket():
        transport = httpx2.AsyncHTTPTransport(uds=str(python))
        yield httpx2.AsyncClient(transport=transport, base_url="http://vllm", timeout=None)
        return
    path = directory / "vllm.sock"
    with (directory / "vllm.log").open("wb") as log:
        process = subprocess.Popen(
            command(python, base, path, Room.of([]), SMALL),
            env=environment({**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}),
            stdout=log,
            stderr=log,
        )
    try:
        with httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://vllm"
        ) as client:
            wait_until_healthy(client, process)
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        yield httpx2.AsyncClient(transport=transport, base_url="http://vllm", timeout=None)
    finally:
        process.terminate()
        process.wait()


def wait_until_healthy(client: httpx2.Client, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, "vLLM did not start"
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.5)
    raise TimeoutError("vLLM did not start in time")
