"""A vLLM that is started and killed: what the engine takes for the Python of vLLM's environment.

    python -m tests.vllm_process JOURNAL -m vllm.entrypoints.cli.main serve BASE --uds SOCKET ...

Answers on the socket as was recorded; with CONFORMANCE_VLLM, the Python of an environment with
vLLM, it starts that one, asks it, and writes down what it says. The journal gets a line for each
start (`{"pid", "arguments"}`) and each request (`{"request"}`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.types import Receive, Scope, Send

from tests.vllm_exchanges import RESTARTS, Exchanges
from tunesmith.ops.lifeline import end_with

ROOT = Path(__file__).parent.parent
POLL_S = 0.5


class Journal(Exchanges):
    def __init__(self, path: Path, client: httpx2.AsyncClient | None) -> None:
        super().__init__(client)
        self._path = path
        if RESTARTS.exists():  # what an earlier start wrote down stays
            self.load(RESTARTS)

    def write(self, entry: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.write({"request": scope["path"]})
        await super().__call__(scope, receive, send)
        for key in self.missing:
            self.write({"missing": key})
        if self._client is not None:
            self.save(RESTARTS)


def main() -> None:
    journal, arguments = Path(sys.argv[1]), sys.argv[2:]
    place = arguments.index("--uds") + 1
    socket = Path(arguments[place])
    client = behind_it = None
    if python := os.environ.get("CONFORMANCE_VLLM"):
        behind = socket.with_name("behind.sock")
        behind.unlink(missing_ok=True)
        behind_it = subprocess.Popen(
            [python, *arguments[:place], str(behind), *arguments[place + 1 :]],
            preexec_fn=partial(end_with, os.getpid()),
        )
        transport = httpx2.AsyncHTTPTransport(uds=str(behind))
        client = httpx2.AsyncClient(transport=transport, base_url="http://vllm", timeout=None)
    app = Journal(journal, client)
    app.write({"pid": os.getpid(), "arguments": arguments})
    server = uvicorn.Server(uvicorn.Config(app, uds=str(socket), lifespan="off", log_level="error"))
    asyncio.run(serve(server, client, behind_it, held_by(journal)))


def held_by(journal: Path) -> Path:
    """While this file is there, no server gets further than its start."""
    return journal.with_suffix(".held")


async def serve(
    server: uvicorn.Server,
    client: httpx2.AsyncClient | None,
    behind_it: subprocess.Popen[bytes] | None,
    held: Path,
) -> None:
    """Listens once the vLLM behind it, if there is one, answers; ends where that ends before."""
    while held.exists():
        await asyncio.sleep(POLL_S)
    while client is not None:
        if behind_it is not None and behind_it.poll() is not None:
            sys.exit(behind_it.returncode)
        try:
            await client.get("/health")
            break
        except httpx2.HTTPError:
            await asyncio.sleep(POLL_S)
    await server.serve()


def write_python(path: Path, journal: Path) -> Path:
    """An executable that runs this module as if it were vLLM's Python."""
    command = f'{sys.executable} -m tests.vllm_process {journal} "$@"'
    path.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {command}\n")
    path.chmod(0o700)
    return path


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    main()
