"""What chats and a training job cost each other on the same cores: `python -m bench.sharing`.

One server with the embedded base. Chats stream alone, then while a job trains, then the job trains
alone, each for some seconds, twice. Told are the waits of chats (for the first token, and between
two tokens) and the steps a second of the job.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from openai import AsyncOpenAI, OpenAI

from bench.engine import tell
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server

NUM_TOKENS = 64
ROWS = Path(__file__).parent.parent / "tests" / "data" / "sgd_chat.jsonl"


@dataclass
class Waits:
    """Milliseconds."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8])
    options = parser.parse_args()
    tell("machine", load=os.getloadavg()[0], cores=os.cpu_count())
    with tempfile.TemporaryDirectory() as scratch, background_server(Path(scratch)) as server:
        for num_streams in options.streams:
            for _ in range(options.rounds):
                measure(server, num_streams, options.seconds)


def measure(server: Server, num_streams: int, seconds: float) -> None:
    alone = asyncio.run(chats(server, num_streams, seconds))
    job = Job(server)
    job.await_step(5)
    begun, clock = job.step(), time.monotonic()
    beside = asyncio.run(chats(server, num_streams, seconds))
    steps_beside = (job.step() - begun) / (time.monotonic() - clock)
    begun, clock = job.step(), time.monotonic()
    time.sleep(seconds)
    steps_alone = (job.step() - begun) / (time.monotonic() - clock)
    job.cancel()
    for name, waits in (("chats alone", alone), ("chats beside a job", beside)):
        tell(
            name,
            streams=num_streams,
            first_token_ms=percentiles(waits.first),
            between_tokens_ms=percentiles(waits.between),
        )
    tell(
        "the job",
        streams=num_streams,
        steps_s_alone=steps_alone,
        steps_s_beside_chats=steps_beside,
        share_left=steps_beside / steps_alone,
        chats_take_times_as_long=statistics.mean(beside.between) / statistics.mean(alone.between),
    )


def percentiles(values: list[float]) -> str:
    """Median, 99th of a hundred, and the longest."""
    ordered = sorted(values)
    picked = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]
    return " / ".join(f"{value:.1f}" for value in picked)


class Job:
    """One that would train for long."""

    def __init__(self, server: Server) -> None:
        self._client = OpenAI(base_url=server.base_url, api_key=server.api_key)
        file = self._client.files.create(file=ROWS.read_bytes(), purpose="fine-tune")
        self._id = self._client.fine_tuning.jobs.create(
            model=EMBEDDED_NAME,
            training_file=file.id,
            hyperparameters={"n_epochs": 50, "batch_size": 1},
        ).id

    def step(self) -> int:
        """The last one that it told."""
        for event in self._client.fine_tuning.jobs.list_events(self._id, limit=20):
            found = (event.data or {}) if isinstance(event.data, dict) else {}
            if event.type == "metrics" and "step" in found:
                return int(found["step"])
        return 0

    def await_step(self, step: int) -> None:
        while self.step() < step:
            status = self._client.fine_tuning.jobs.retrieve(self._id).status
            if status in ("failed", "cancelled", "succeeded"):
                raise SystemExit(f"the job {status}")
            time.sleep(0.5)

    def cancel(self) -> None:
        self._client.fine_tuning.jobs.cancel(self._id)
        while self._client.fine_tuning.jobs.retrieve(self._id).status != "cancelled":
            time.sleep(0.2)


async def chats(server: Server, num_streams: int, seconds: float) -> Waits:
    """So many at any time, one after another."""
    waits = Waits()
    end = time.monotonic() + seconds

    async def one_after_another(client: AsyncOpenAI, place: int) -> None:
        number = 0
        while time.monotonic() < end:
            await chat(client, f"Tell me a long story about {place} and {number}.", waits)
            number += 1

    async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as client:
        await asyncio.gather(*(one_after_another(client, each) for each in range(num_streams)))
    return waits


async def chat(client: AsyncOpenAI, prompt: str, waits: Waits) -> None:
    last = time.perf_counter()
    is_first = True
    stream = await client.chat.completions.create(
        model=EMBEDDED_NAME,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=NUM_TOKENS,
        stream=True,
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            now = time.perf_counter()
            (waits.first if is_first else waits.between).append(1e3 * (now - last))
            last, is_first = now, False


if __name__ == "__main__":
    main()
