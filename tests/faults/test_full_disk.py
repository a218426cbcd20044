"""A disk that runs full under the server: clear refusals, nothing half-stored, jobs go on later.

Needs root: it mounts a small disk of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import APIStatusError, OpenAI

from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server

DISK_BYTES = 24 << 20
NUM_ROWS, NUM_EPOCHS = 20, 5


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)], check=True
    )
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def server(disk: Path) -> Iterator[Server]:
    with background_server(disk / "data") as running:
        yield running


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 65536)


def test_an_upload_that_does_not_fit_is_refused_and_leaves_nothing(
    server: Server, disk: Path
) -> None:
    client = OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)
    with pytest.raises(APIStatusError) as refusal:
        client.files.create(file=("large", b"x" * 2 * DISK_BYTES), purpose="fine-tune")
    assert (refusal.value.status_code, refusal.value.code) == (503, "disk_full")
    assert not [path for path in (disk / "data" / "blobs").rglob("*") if path.is_file()]
    assert client.files.list().data == []
    client.files.create(file=("small", b"x"), purpose="fine-tune")


def test_a_job_waits_for_room(server: Server, disk: Path) -> None:
    client = OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=10)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Question {number}?"},
                {"role": "assistant", "content": f"Answer {number}."},
            ]
        }
        for number in range(NUM_ROWS)
    ]
    content = "\n".join(map(json.dumps, rows)).encode()
    file = client.files.create(file=("rows", content), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=EMBEDDED_NAME,
        training_file=file.id,
        hyperparameters={"n_epochs": NUM_EPOCHS, "batch_size": 1},
    )
    fill(disk / "filler")
    time.sleep(5)
    assert client.fine_tuning.jobs.retrieve(job.id).status not in ("failed", "succeeded")
    (disk / "filler").unlink()
    give_up = time.monotonic() + 90
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status != "succeeded":
        assert job.status != "failed", job.error
        assert time.monotonic() < give_up
        time.sleep(0.2)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    assert steps == list(range(NUM_ROWS * NUM_EPOCHS, 0, -1))
