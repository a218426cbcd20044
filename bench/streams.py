"""What open streams of events cost the API: `python bench/streams.py [--streams 500]`.

A server of its own; streams are opened, stay silent for a while, then hear of a job that trains.
Prints the memory and the processor time of the API's process, and whether every stream heard all.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from openai import OpenAI

from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server

SILENT_S = 20.0
ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    num = parser.parse_args().streams
    with tempfile.TemporaryDirectory() as scratch, background_server(Path(scratch)) as server:
        asyncio.run(measure(server, num))


def api_process(server: Server) -> psutil.Process:
    children = psutil.Process(server.process.pid).children(recursive=True)
    [found] = [each for each in children if "tunesmith.api" in each.cmdline()]
    return found


async def measure(server: Server, num: int) -> None:
    api = api_process(server)
    print(f"{'':24}  {'RSS MB':>7}  {'CPU s':>7}  {'wall s':>7}")
    before = report(api, "no stream", None)
    heard = [0] * num
    streams = [asyncio.create_task(listen(server, heard, number)) for number in range(num)]
    while min(heard) < 1:
        await asyncio.sleep(0.1)
    opened = report(api, f"{num} opened", before)
    await asyncio.sleep(SILENT_S)
    silent = report(api, f"{num} silent", opened)
    job_id = await asyncio.to_thread(train, server)
    report(api, f"{num} hear of a job", silent)
    events = OpenAI(base_url=server.base_url, api_key=server.api_key).fine_tuning.jobs.list_events(
        job_id, limit=10_000
    )
    await asyncio.sleep(2)
    complete = sum(each == 1 + len(events.data) for each in heard)
    print(f"{complete} of {num} heard all {len(events.data)} events, once")
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def listen(server: Server, heard: list[int], number: int) -> None:
    """Counts the ids that come: one of the place where it begins, then one an event."""
    parts = urlsplit(server.root)
    assert parts.hostname and parts.port
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        b"GET /v1/tunesmith/events HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer " + server.api_key.encode() + b"\r\n\r\n"
    )
    while line := await reader.readline():
        heard[number] += line.startswith(b"id: ")


def train(server: Server) -> str:
    client = OpenAI(base_url=server.base_url, api_key=server.api_key)
    file = client.files.create(file=ROWS * 40, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=EMBEDDED_NAME, training_file=file.id, hyperparameters={"n_epochs": 5, "batch_size": 1}
    )
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job.id


Figures = tuple[float, float]


def report(api: psutil.Process, what: str, since: Figures | None) -> Figures:
    cpu = api.cpu_times()
    now = (cpu.user + cpu.system, time.monotonic())
    spent = "" if since is None else f"{now[0] - since[0]:7.2f}  {now[1] - since[1]:7.1f}"
    print(f"{what:24}  {api.memory_info().rss / 1e6:7.0f}  {spent}", flush=True)
    return now


if __name__ == "__main__":
    main()
