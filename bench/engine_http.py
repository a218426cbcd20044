"""32 chats that stream, the whole way through HTTP: ours, and `transformers serve` by turns.

    python -m bench.engine_http --transformers PYTHON

Both serve the embedded base on loopback with their own defaults, continuous batching on, fp32 where
the processor does not multiply bf16. Both get the same greedy chats; whether the texts are the same
is told. The second table says what a step costs beside the computing itself while all 32 streams
run: by the clock, the time between two steps beyond that of the same step computed alone in this
process (before each round, with the server idle); how much of it the engine only waited for a
processor, which others had; and processor time of the API's process, and of the engine's beyond the
same step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch

from bench.engine import served, tell
from tunesmith.bases import EMBEDDED_NAME, embedded_directory
from tunesmith.cli.background import answers, background_server
from tunesmith.config import load_settings
from tunesmith.model.load import load_model
from tunesmith.model.precision import multiplies_bf16
from tunesmith.serve.client import EngineClient
from tunesmith.serve.protocol import GenRequest
from tunesmith.serve.rows import BatchedRows
from tunesmith.serve.sampler import Draws, draw

NUM_STREAMS = 32
NUM_TOKENS = 64
# Where steps are measured: longer, so that the time with all streams running is most of it.
STEP_TOKENS = 160
PROMPT_TOKENS = 40
READY_S = 180.0
TOPICS = "river mountain dog ship garden winter music letter doctor market".split()


@dataclass
class Stream:
    text: str = ""
    num_tokens: int = 0
    first_s: float = 0.0
    chunks: int = 0


@dataclass
class Round:
    wall_s: float
    cpu_s: float
    """Of the server's processes."""
    streams: list[Stream]

    @property
    def num_tokens(self) -> int:
        return sum(each.num_tokens for each in self.streams)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transformers", help="the Python of an environment with its `serving`")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tell("machine", load=os.getloadavg()[0], cores=os.cpu_count(), torch=torch.__version__)
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as directory:
        data = Path(directory) / "data"
        with background_server(data) as server:
            ours = Target(server.root, server.api_key, EMBEDDED_NAME, server.process.pid)
            socket_path = load_settings(data=data).engine_socket
            if options.transformers:
                with transformers_serve(options.transformers, Path(directory)) as theirs:
                    asyncio.run(compare(ours, theirs, options.rounds))
            asyncio.run(steps(ours, socket_path, options.rounds))


@dataclass(frozen=True)
class Target:
    root: str
    key: str
    model: str
    pid: int

    def processes(self) -> list[psutil.Process]:
        mine = psutil.Process(self.pid)
        return [mine, *mine.children(recursive=True)]

    def waited_s(self, module: str) -> float:
        """For a processor, while it could have run: its busiest thread. Linux tells."""
        [found] = [each for each in self.processes() if module in each.cmdline()]
        threads = Path(f"/proc/{found.pid}/task").glob("*/schedstat")
        _, waited_ns = max(tuple(map(int, path.read_text().split()[:2])) for path in threads)
        return waited_ns / 1e9

    def cpu_s(self, module: str = "") -> float:
        """Of all its processes, or of the one that runs a module."""
        found = [each for each in self.processes() if not module or module in each.cmdline()]
        times = [each.cpu_times() for each in found]
        return sum(each.user + each.system for each in times)


@contextmanager
def transformers_serve(python: str, scratch: Path) -> Iterator[Target]:
    """`transformers serve`, with a cache as large as 32 chats need."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base = str(embedded_directory())
    dtype = "bfloat16" if multiplies_bf16() else "float32"
    command = [python, "-m", "transformers.cli.transformers", "serve", base, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", dtype]
    command += ["--continuous-batching", "--cb-num-blocks", str(2 * NUM_STREAMS)]
    command += ["--cb-max-batch-tokens", "512"]
    with (scratch / "transformers.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        root = f"http://127.0.0.1:{port}"
        give_up = time.monotonic() + READY_S
        while not answers(f"{root}/health"):
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit((scratch / "transformers.log").read_text()[-2000:])
            time.sleep(0.2)
        yield Target(root, "none", base, process.pid)
    finally:
        process.terminate()
        process.wait()


async def compare(ours: Target, theirs: Target, num_rounds: int) -> None:
    """Each round has other chats; the first one warms up."""
    found: dict[str, list[Round]] = {"tunesmith": [], "transformers serve": []}
    for number in range(num_rounds + 1):
        for name, target in zip(found, (ours, theirs), strict=True):
            done = await chats(target, number)
            found[name] += [done] if number else []
    mine = found["tunesmith"]
    for name, rounds in found.items():
        pairs = list(zip(rounds, mine, strict=True))
        tell(
            "32 streams through HTTP",
            server=name,
            tokens_s=statistics.median(each.num_tokens / each.wall_s for each in rounds),
            tokens_cpu_s=statistics.median(each.num_tokens / each.cpu_s for each in rounds),
            first_token_ms=1e3 * statistics.median(s.first_s for r in rounds for s in r.streams),
            tokens=sum(each.num_tokens for each in rounds),
            same_texts=sum(
                a.text == b.text
                for r, m in pairs
                for a, b in zip(r.streams, m.streams, strict=True)
            )
            / (NUM_STREAMS * len(rounds)),
            we_are_times_as_fast=statistics.median(
                (r.wall_s / r.num_tokens) / (m.wall_s / m.num_tokens) for r, m in pairs
            ),
            in_cpu_time=statistics.median(
                (r.cpu_s / r.num_tokens) / (m.cpu_s / m.num_tokens) for r, m in pairs
            ),
        )


async def chats(
    target: Target, number: int, num_tokens: int = NUM_TOKENS, running: Running | None = None
) -> Round:
    """32 chats at once, to their end."""
    prompts = [
        f"Tell me a long story about a {TOPICS[place % len(TOPICS)]} and {100 * number + place}."
        for place in range(NUM_STREAMS)
    ]
    begun, cpu_s = time.perf_counter(), target.cpu_s()
    streams = await asyncio.gather(
        *(chat(target, prompt, num_tokens, running) for prompt in prompts)
    )
    return Round(time.perf_counter() - begun, target.cpu_s() - cpu_s, list(streams))


async def chat(target: Target, prompt: str, num_tokens: int, running: Running | None) -> Stream:
    parts = urlsplit(target.root)
    body = json.dumps(
        {
            "model": target.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": num_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {parts.hostname}\r\n"
        f"authorization: Bearer {target.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(head + body)
    found = Stream()
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        found.num_tokens = (chunk.get("usage") or {}).get("completion_tokens", found.num_tokens)
        for choice in chunk["choices"]:
            text = choice["delta"].get("content") or ""
            if text and not found.chunks:
                found.first_s = time.perf_counter() - begun
                if running:
                    running.begin()
            found.chunks += bool(text)
            found.text += text
            if running and (choice["finish_reason"] or found.chunks > num_tokens - 10):
                running.one_ended.set()
    writer.close()
    if not found.num_tokens:
        raise SystemExit(f"{target.root} did not answer {prompt!r}")
    return found


async def steps(ours: Target, engine_socket: Path, num_rounds: int) -> None:
    """What a step costs beside computing, in microseconds; medians of the rounds."""
    client = EngineClient(engine_socket)
    alone = Alone()
    found: list[dict[str, float]] = []
    for number in range(num_rounds + 1):
        each = alone.step_s()
        running = Running()
        chatting = asyncio.create_task(chats(ours, 1000 + number, STEP_TOKENS, running))
        await running.all_begun.wait()
        begun = await figures(ours, client)
        await running.one_ended.wait()
        ended = await figures(ours, client)
        await chatting
        each |= {
            name: (ended[name] - begun[name]) / (ended["num_steps"] - begun["num_steps"])
            for name in ("clock", "waited", "engine_cpu", "api_cpu")
        }
        each["http_and_scheduling"] = each["clock"] - each["alone_clock"]
        each["engine_cpu_beyond"] = each["engine_cpu"] - each["alone_cpu"]
        found += [each] if number else []
    medians = {name: 1e6 * statistics.median(each[name] for each in found) for name in found[0]}
    least = 1e6 * min(each["http_and_scheduling"] for each in found)
    tell("a step of 32 streams, us", **medians, http_and_scheduling_least=least)


class Running:
    """Tells when all of 32 streams have begun, and when the first is about to end."""

    def __init__(self) -> None:
        self.all_begun, self.one_ended = asyncio.Event(), asyncio.Event()
        self._num_begun = 0

    def begin(self) -> None:
        self._num_begun += 1
        if self._num_begun == NUM_STREAMS:
            self.all_begun.set()


async def figures(target: Target, client: EngineClient) -> dict[str, float]:
    stats = await client.stats()
    return {
        "num_steps": stats["num_passes"],
        "clock": time.perf_counter(),
        "waited": target.waited_s("tunesmith.serve"),
        "engine_cpu": target.cpu_s("tunesmith.serve"),
        "api_cpu": target.cpu_s("tunesmith.api"),
    }


class Alone:
    """A step of 32 rows and their draws, by itself."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            self._model = served(load_model(embedded_directory()))
        request = GenRequest(embedded_directory(), [5], STEP_TOKENS, frozenset(), temperature=0.0)
        self._draws = [Draws(request, seed=0, index=place) for place in range(NUM_STREAMS)]

    def step_s(self) -> dict[str, float]:
        """By the clock and on the processor, from rows as long as those of the chats."""
        nobody = [None] * NUM_STREAMS
        times: dict[str, list[float]] = {"alone_clock": [], "alone_cpu": []}
        with torch.inference_mode():
            rows = BatchedRows(self._model, NUM_STREAMS)
            rows.reserve(NUM_STREAMS, PROMPT_TOKENS + STEP_TOKENS)
            for _ in range(NUM_STREAMS):
                rows.add()
            prompt = [5 + k for k in range(PROMPT_TOKENS)]
            rows.run([[5 + place, *prompt] for place in range(NUM_STREAMS)], nobody)
            for _ in range(STEP_TOKENS - 1):
                begun, begun_cpu = time.perf_counter(), time.thread_time()
                draw(rows.run([[9]] * NUM_STREAMS, nobody), self._draws)
                times["alone_clock"].append(time.perf_counter() - begun)
                times["alone_cpu"].append(time.thread_time() - begun_cpu)
        return {name: statistics.mean(all_s) for name, all_s in times.items()}


if __name__ == "__main__":
    main()
