"""A real Redis for a test: on a Unix socket of its own, nothing kept."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tunesmith.limits.redis import PREFIX, RedisLimiter

START_S = 20.0


@dataclass(frozen=True)
class RedisServer:
    url: str
    process: subprocess.Popen[bytes]

    def forget_process(self, limiter: RedisLimiter) -> None:
        """As its sign of life would run out."""
        with redis.Redis.from_url(self.url) as connection:
            connection.delete(f"{PREFIX}alive:{limiter._me}")


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as scratch:
        socket = Path(scratch) / "redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", str(socket)]
        command += ["--save", "", "--appendonly", "no", "--dir", scratch]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + START_S
            while not socket.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            yield RedisServer(f"unix://{socket}", process)
        finally:
            process.terminate()
            process.wait()
