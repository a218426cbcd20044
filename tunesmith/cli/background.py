"""A server of our own for a while: started as its own process, drained at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.cli.problem import CommandFailed
from tunesmith.ids import SystemRng, new_api_key

READY_S = 120.0  # the slowest machine that should still work, with a cold disk
STOP_S = 60.0


@dataclass(frozen=True)
class Server:
    root: str  # http://127.0.0.1:PORT
    api_key: str
    data: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"


@contextlib.contextmanager
def background_server(data: Path, environment: Mapping[str, str] = {}) -> Iterator[Server]:
    """`tunesmith serve` on a free port and a fresh key, ready to answer.

    `environment` adds TUNESMITH_* settings. What the server prints goes to DATA/log/serve.log.
    """
    server = launch(data.resolve(), environment)
    try:
        wait_ready(server)
        yield server
    finally:
        stop(server.process)


def launch(data: Path, environment: Mapping[str, str]) -> Server:
    log = data / "log" / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port, key = free_port(), new_api_key(SystemRng())
    command = [sys.executable, "-m", "tunesmith.cli.app", "serve"]
    command += ["--data", str(data), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "TUNESMITH_API_KEY": key},
            start_new_session=True,  # Ctrl-C is for the caller, who then stops the server in order
        )
    return Server(f"http://127.0.0.1:{port}", key, data, log, process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ready(server: Server) -> None:
    give_up = time.monotonic() + READY_S
    while not answers(f"{server.root}/readyz"):
        if server.process.poll() is not None:
            tail = server.log.read_text(errors="replace").strip()[-500:]
            raise CommandFailed(f"The server ended while starting: {tail} (log: {server.log})")
        if time.monotonic() > give_up:
            raise CommandFailed(f"The server is not ready after {READY_S:.0f} s; see {server.log}.")
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Lets the server drain; kills its whole session if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
