"""The whole server under random kills, while files go up, jobs run and chats are asked for."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import APIError, OpenAI

from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server

MODULES = ("tunesmith.api", "tunesmith.jobs", "tunesmith.serve", "tunesmith.trainer.warm")
NUM_KILLS = 20
NUM_ROWS, NUM_EPOCHS = 20, 10
TIMEOUT_S = 240.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with background_server(tmp_path / "data") as running:
        yield running


def descendants(process_id: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def kill_one(server: Server, module: str) -> bool:
    """Kills the server's process that runs `module`, if it is up."""
    for process_id in descendants(server.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if module in Path(f"/proc/{process_id}/cmdline").read_text().split("\0"):
                os.kill(process_id, signal.SIGKILL)
                return True
    return False


def keep_doing(action: Callable[[], None], stop: threading.Event) -> threading.Thread:
    """Repeats what may fail while processes are down."""

    def work() -> None:
        while not stop.is_set():
            with contextlib.suppress(APIError):
                action()
            stop.wait(0.2)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def wait_for_one_more(answers: list[str]) -> None:
    num, give_up = len(answers), time.monotonic() + TIMEOUT_S
    while len(answers) == num:
        assert time.monotonic() < give_up, "no answer"
        time.sleep(0.1)


def rows(tag: str) -> bytes:
    return b"".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"{tag} {number}?"},
                    {"role": "assistant", "content": f"Answer {number}."},
                ]
            }
        ).encode()
        + b"\n"
        for number in range(NUM_ROWS)
    )


def test_nothing_acknowledged_is_lost(server: Server) -> None:
    client = OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=10)
    files: dict[str, bytes] = {}
    answers: list[str] = []

    def upload() -> None:
        content = rows(f"upload {len(files)}")
        files[client.files.create(file=("rows", content), purpose="fine-tune").id] = content

    def ask() -> None:
        said = client.chat.completions.create(
            model=EMBEDDED_NAME,
            messages=[{"role": "user", "content": "I need a taxi."}],
            temperature=0,
            max_tokens=12,
        )
        answers.append(said.choices[0].message.content or "")

    upload()
    hyperparameters = {"n_epochs": NUM_EPOCHS, "batch_size": 1}
    jobs = [
        client.fine_tuning.jobs.create(
            model=EMBEDDED_NAME, training_file=next(iter(files)), hyperparameters=hyperparameters
        ).id
        for _ in range(3)
    ]
    stop = threading.Event()
    threads = [keep_doing(upload, stop), keep_doing(ask, stop)]
    wait_for_one_more(answers)
    source = random.Random(7)
    num_kills = 0
    while num_kills < NUM_KILLS:
        time.sleep(source.uniform(0.2, 1.5))
        num_kills += kill_one(server, source.choice(MODULES))
    # An engine may need longer to start than it was left alone.
    wait_for_one_more(answers)
    stop.set()
    for thread in threads:
        thread.join()

    give_up = time.monotonic() + TIMEOUT_S
    for job_id in jobs:
        while (job := client.fine_tuning.jobs.retrieve(job_id)).status != "succeeded":
            assert job.status in ("validating_files", "queued", "running"), job.error
            assert time.monotonic() < give_up, f"{job_id} is {job.status}"
            time.sleep(0.2)
        events = list(client.fine_tuning.jobs.list_events(job_id, limit=30))
        steps = [event.data["step"] for event in events if event.type == "metrics"]
        assert steps == list(range(NUM_ROWS * NUM_EPOCHS, 0, -1))
        assert job.fine_tuned_model
        tuned = client.chat.completions.create(
            model=job.fine_tuned_model, messages=[{"role": "user", "content": "upload 0 3?"}]
        )
        assert tuned.choices[0].finish_reason in ("stop", "length")

    assert len(files) > 1
    for file_id, content in files.items():
        assert client.files.content(file_id).read() == content
    # Greedy answers of one model are one answer, whatever died in between.
    assert len(answers) > 1
    assert len(set(answers)) == 1
