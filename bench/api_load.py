"""How many light requests a second the API process answers, and how soon while chats stream.

    python bench/api_load.py                     the API process alone, models list and job retrieve
    python bench/api_load.py --writes 20         the same beside 20 commits a second
    python bench/api_load.py --streams 32        the whole server, light requests beside chats

The client is a process of its own that speaks bare HTTP/1.1 over kept connections; its CPU time is
told apart. On a busy machine the CPU time of the server for one request is the figure that counts:
its inverse is what one free core would answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from openai import OpenAI

from tunesmith.bases import EMBEDDED_NAME, describe, embedded_directory
from tunesmith.cli.background import background_server
from tunesmith.config import Settings
from tunesmith.ids import PROJECT_KEY, SystemClock, SystemRng, new_api_key
from tunesmith.store.db import open_database
from tunesmith.store.repo import bases, keys, models
from tunesmith.store.repo.models import ModelRow

ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
NUM_MODELS = 20
TICKS = os.sysconf("SC_CLK_TCK")


def prepare(data: Path) -> str:
    """A data directory with one base and one key; the key."""
    settings = Settings(data=data)
    db = open_database(settings.data_dir)
    secret = new_api_key(PROJECT_KEY, SystemRng())
    pepper = keys.load_pepper(settings.data_dir)
    with db.write() as conn:
        keys.create(conn, pepper, SystemRng(), name="load", now=1, secret=secret)
        bases.insert(conn, describe(embedded_directory(), EMBEDDED_NAME, SystemClock()))
    db.close()
    return secret


def make_things(data: Path, root: str, key: str) -> list[str]:
    """A job and some tuned models; the paths of light requests."""
    client = OpenAI(base_url=f"{root}/v1", api_key=key)
    file = client.files.create(file=(ROW * 12).encode(), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=EMBEDDED_NAME, training_file=file.id)
    client.fine_tuning.jobs.cancel(job.id)
    db = open_database(data)
    with db.write() as conn:
        for number in range(NUM_MODELS):
            name = f"ft:{EMBEDDED_NAME}:personal::{number:08d}"
            row = ModelRow(
                name, "proj_default", "tuned", EMBEDDED_NAME, EMBEDDED_NAME, None, job.id, 1, "me"
            )
            models.insert(conn, row)
    db.close()
    return ["/v1/models", f"/v1/fine_tuning/jobs/{job.id}"]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def hammer(host: str, port: int, request: bytes, until: float, waits: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while time.perf_counter() < until:
        begun = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length))
        waits.append(time.perf_counter() - begun)
    writer.close()


async def load(root: str, key: str, path: str, connections: int, seconds: float) -> list[float]:
    """Waits of all requests, seconds."""
    host, port = root.removeprefix("http://").split(":")
    request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    waits: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(
        *(hammer(host, int(port), request, until, waits) for _ in range(connections))
    )
    return waits


@asynccontextmanager
async def chats(root: str, key: str, num_streams: int) -> AsyncIterator[list[int]]:
    """Keeps that many chat streams running; counts their chunks."""
    counts = [0]

    async def stream() -> None:
        host, port = root.removeprefix("http://").split(":")
        body = json.dumps(
            {
                "model": EMBEDDED_NAME,
                "messages": [{"role": "user", "content": "Tell me a long story."}],
                "max_tokens": 400,
                "stream": True,
            }
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        ).encode()
        while True:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head + body)
            while piece := await reader.read(65536):
                counts[0] += piece.count(b"data: ")
            writer.close()

    tasks = [asyncio.create_task(stream()) for _ in range(num_streams)]
    try:
        yield counts
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(
    name: str, pid: int, root: str, key: str, path: str, connections: int, seconds: float
) -> None:
    await load(root, key, path, connections, 1.0)
    server, client = cpu_s(pid), resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    waits = sorted(await load(root, key, path, connections, seconds))
    elapsed = time.perf_counter() - begun
    server = cpu_s(pid) - server
    after = resource.getrusage(resource.RUSAGE_SELF)
    own = after.ru_utime + after.ru_stime - client.ru_utime - client.ru_stime
    num = len(waits)
    print(
        f"{name:12} {num / elapsed:8,.0f} requests/s   p50 {waits[num // 2] * 1e3:6.1f} ms   "
        f"p99 {waits[num * 99 // 100] * 1e3:6.1f} ms   server CPU {server / num * 1e6:5.0f} us a "
        f"request ({num / server:,.0f} a CPU second)   client {own / num * 1e6:4.0f} us",
        flush=True,
    )


@contextmanager
def writing(data: Path, per_second: float) -> Iterator[None]:
    """Commits of another process, as a worker makes them: each ends what the API has kept."""
    stop = threading.Event()
    db = open_database(data)

    def write() -> None:
        while not stop.wait(1 / per_second):
            with db.write() as conn:
                keys.touch(conn, "nobody's", 1)

    thread = threading.Thread(target=write)
    if per_second:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if per_second:
            thread.join()
        db.close()


def api_alone(data: Path, connections: int, seconds: float, writes: float) -> None:
    key = prepare(data)
    environment = os.environ | {"TUNESMITH_DATA": str(data), "TUNESMITH_PORT": "18765"}
    with (data / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith.api"], env=environment, stderr=log
        )
    root = "http://127.0.0.1:18765"
    try:
        for path in await_and_make(data, root, key):
            name = "models" if path.endswith("models") else "job"
            with writing(data, writes):
                asyncio.run(measure(name, process.pid, root, key, path, connections, seconds))
    finally:
        process.terminate()
        process.wait()


def await_and_make(data: Path, root: str, key: str) -> list[str]:
    client = OpenAI(base_url=f"{root}/v1", api_key=key, max_retries=20)
    client.models.list()
    return make_things(data, root, key)


def beside_chats(data: Path, num_streams: int, connections: int, seconds: float) -> None:
    with background_server(data) as server:
        root = server.base_url.removesuffix("/v1")
        pid = next(
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if b"tunesmith.api\0--fd" in (path / "cmdline").read_bytes()
            and str(data).encode() in (path / "environ").read_bytes()
        )
        paths = make_things(data, root, server.api_key)

        async def both() -> None:
            async with chats(root, server.api_key, num_streams) as counts:
                await asyncio.sleep(3)
                for path in paths:
                    name = "models" if path.endswith("models") else "job"
                    before = counts[0]
                    await measure(name, pid, root, server.api_key, path, connections, seconds)
                    print(f"{'':12} {(counts[0] - before) / (seconds + 1):,.0f} chunks/s streamed")

        asyncio.run(both())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=0, help="chats that stream meanwhile")
    parser.add_argument("--writes", type=float, default=0, help="commits a second meanwhile")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        if given.streams:
            beside_chats(data, given.streams, min(given.connections, 4), given.seconds)
        else:
            api_alone(data, given.connections, given.seconds, given.writes)


if __name__ == "__main__":
    main()
