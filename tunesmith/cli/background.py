"""A server of our own for a while: started as its own process, drained at the end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.cli.problem import CommandFailed
from tunesmith.ids import PROJECT_KEY, SystemRng, new_api_key

READY_S = 120.0  # the slowest machine that should still work, with a cold disk
STOP_S = 60.0
BASE_URL_LINE = re.compile(r"^  base URL  (http://\S+)/v1$", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    root: str  # http://127.0.0.1:PORT
    api_key: str
    data: Path
    process: subprocess.Popen[bytes]

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"


@contextlib.contextmanager
def background_server(data: Path, environment: Mapping[str, str] = {}) -> Iterator[Server]:
    """`tunesmith serve` on a free port and a fresh key, ready to answer.

    `environment` adds TUNESMITH_* settings. What the server prints goes to DATA/log/serve.log.
    """
    data = data.resolve()
    process, key = launch(data, environment)
    try:
        root = wait_ready(process, log_of(data))
        yield Server(root, key, data, process)
    finally:
        stop(process)


def launch(data: Path, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    """The launcher's process and the first API key."""
    data.joinpath("log").mkdir(parents=True, exist_ok=True)
    key = new_api_key(PROJECT_KEY, SystemRng())
    # The lifeline: should the caller be killed, the server drains and ends by itself.
    command = [sys.executable, "-m", "tunesmith.ops.lifeline", str(os.getpid())]
    command += ["tunesmith.cli.app", "serve", "--data", str(data)]
    command += ["--host", "127.0.0.1", "--port", "0"]
    with log_of(data).open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "TUNESMITH_API_KEY": key},
            start_new_session=True,  # Ctrl-C is for the caller, who then stops the server in order
        )
    return process, key


def log_of(data: Path) -> Path:
    return data / "log" / "serve.log"


def wait_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The server's root URL, once everything behind it answers."""
    give_up = time.monotonic() + READY_S
    while True:
        text = log.read_text(errors="replace")
        found = BASE_URL_LINE.search(text)
        if found and answers(f"{found[1]}/readyz"):
            return found[1]
        if process.poll() is not None:
            raise CommandFailed(f"The server ended while starting: {text[-500:]} (log: {log})")
        if time.monotonic() > give_up:
            raise CommandFailed(f"The server is not ready after {READY_S:.0f} s; see {log}.")
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
