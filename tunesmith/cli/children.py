"""The server's processes as the launcher sees them: started, listened to, started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
# A process that has lived so long starts with a clean slate.
STEADY_S = 30.0
MAX_LOG_BYTES = 16 << 20
LOUD = ("warning", "error", "critical")


@dataclass
class Child:
    """One process and the rules of its restarts. Use it from the main thread only.

    (The kernel ties a child's life to the thread that started it.)
    """

    name: str
    module: str
    log: Path
    environment: Mapping[str, str]
    arguments: Sequence[str] = ()
    inherited: Sequence[int] = ()
    first_pause_s: float = FIRST_PAUSE_S
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)
    _num_deaths: int = field(default=0, init=False)
    _restart_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        me = str(os.getpid())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith.ops.lifeline", me, self.module, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self.environment),
            pass_fds=tuple(self.inherited),
            start_new_session=True,  # Ctrl-C is for the launcher, who drains in order
        )
        self._started = time.monotonic()
        assert self.process.stdout is not None
        arguments = (self.process.stdout, self.log, self.name)
        threading.Thread(target=listen, args=arguments, daemon=True).start()

    def revive(self) -> None:
        """Starts the process again if it has died and its pause is over."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._restart_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        if now - self._started >= STEADY_S:
            self._num_deaths = 0
        pause_s = min(self.first_pause_s * 2**self._num_deaths, LONGEST_PAUSE_S)
        self.process = None
        self._restart_at = now + pause_s
        # Capped where the pause has long been the longest.
        self._num_deaths = min(self._num_deaths + 1, 32)
        say(f"{self.name} {ending(code)}; starting again in {pause_s:g} s (see {self.log})")

    def terminate(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with status {code}"
    return f"was killed by {signal.Signals(-code).name}"


def say(text: str) -> None:
    print(f"tunesmith: {text}", file=sys.stderr, flush=True)


def listen(pipe: IO[bytes], log: Path, name: str) -> None:
    """Writes what a process says to its log, and what is urgent to the terminal too.

    Lines that a full disk refuses are lost: whoever stopped reading would stop the process.
    """
    for line in pipe:
        with contextlib.suppress(OSError):
            append(log, line)
        urgent = urgent_message(line)
        if urgent is not None:
            say(f"{name}: {urgent}")


def append(log: Path, line: bytes) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as out:
        out.write(line)


def urgent_message(line: bytes) -> str | None:
    """The message of a log line that the operator should see now."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("level") not in LOUD:
        return None
    return str(record.get("message"))
