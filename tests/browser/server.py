"""`tunesmith serve` for a browser: started, ended and started again on the same port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from openai import OpenAI

# A machine that does other things beside this one is slow to start.
START_S = 180.0


def eventually(true: Callable[[], bool], timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.1)


class Server:
    """A server with a data directory of its own; `lines`: what it has printed."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.lines: list[str] = []
        self.start(port=0)
        self.url = self.said(r"base URL +(\S+)/v1")
        self.key = self.said(r"API key +(sk-\S+)")
        self.link = self.said(r"web app +(\S+)")

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key, timeout=180)

    def start(self, port: int) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TUNESMITH_")}
        command = ["serve", "--data", str(self.data), "--port", str(port)]
        self.lines.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith.cli.app", *command],
            env=kept,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()
        eventually(lambda: "ready" in self.lines, START_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_S)

    def restart(self) -> None:
        self.end()
        self.start(port=int(self.url.rsplit(":", 1)[1]))

    def said(self, pattern: str) -> str:
        found = re.search(pattern, "\n".join(self.lines))
        assert found is not None, f"{pattern} is not in {self.lines}"
        return found.group(1)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip())
