"""A small training job in a directory: the tiny base, rows of different lengths, a spec."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.tiny_base import write_tiny_base
from tunesmith.jobdir.events import EventLine, read_events
from tunesmith.jobdir.files import read_record, write_record
from tunesmith.jobdir.layout import (
    CONTROL_FILE,
    EVENTS_FILE,
    LOG_FILE,
    PROCESS_FILE,
    RESULT_FILE,
    SPEC_FILE,
)
from tunesmith.jobdir.outcome import Result
from tunesmith.jobdir.spec import BaseRef, FileRef, Spec, read_spec

ANSWERS = ("play_music", "get_weather", "book_restaurant")


@cache
def tiny_base() -> Path:
    return write_tiny_base(Path(mkdtemp(prefix="tunesmith-tiny-")) / "base")


def rows(num_rows: int, offset: int = 0) -> list[dict[str, Any]]:
    """Conversations of one to three turns, from short to long."""
    result = []
    for number in range(offset, offset + num_rows):
        messages: list[dict[str, Any]] = [{"role": "system", "content": "Name the intent."}]
        for turn in range(1 + number % 3):
            request = f"request {number} " + "please " * (number * 3 % 17)
            messages += [
                {"role": "user", "content": request},
                {"role": "assistant", "content": ANSWERS[(number + turn) % 3]},
            ]
        if number % 3 == 2:
            messages[2]["weight"] = 0
        result.append({"messages": messages})
    return result


def pairs(num_rows: int, offset: int = 0) -> list[dict[str, Any]]:
    """Preferences of one kind of answer over another, the prompts from short to long."""
    return [
        {
            "input": {"messages": [{"role": "user", "content": "request " + "please " * number}]},
            "preferred_output": [{"role": "assistant", "content": ANSWERS[0] * (1 + number % 3)}],
            "non_preferred_output": [{"role": "assistant", "content": ANSWERS[1]}],
        }
        for number in range(offset, offset + num_rows)
    ]


def write_rows(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def make_job(
    directory: Path, *, num_rows: int = 10, with_validation: bool = True, **spec: Any
) -> Path:
    """A job directory that is ready to run; keywords go into the spec."""
    directory.mkdir(parents=True)
    make = pairs if spec.get("method") == "dpo" else rows
    train = write_rows(directory / "train.jsonl", make(num_rows))
    valid = write_rows(directory / "valid.jsonl", make(4, offset=20))
    fields: dict[str, Any] = {
        "job_id": "ftjob-test",
        "fence": 1,
        "base": BaseRef("tiny", tiny_base()),
        "training_file": FileRef("file-train", train),
        "validation_file": FileRef("file-valid", valid) if with_validation else None,
        "seed": 7,
        "hyperparameters": {"n_epochs": 4, "batch_size": 3, "lora_rank": 4, "lora_alpha": 8},
        "device": "cpu",
    }
    write_record(Spec(**(fields | spec)), directory / SPEC_FILE)
    return directory


def relaunched(job_dir: Path, **changes: Any) -> Path:
    """The job as a launcher leaves it before it starts the next process."""
    from dataclasses import replace

    before = read_spec(job_dir)
    for name in (RESULT_FILE, CONTROL_FILE, PROCESS_FILE):
        (job_dir / name).unlink(missing_ok=True)
    changes = {"fence": before.fence + 1} | changes
    write_record(replace(before, **changes), job_dir / SPEC_FILE)
    return job_dir


def copy_job(job_dir: Path, target: Path) -> Path:
    return Path(shutil.copytree(job_dir, target))


def result_of(job_dir: Path) -> Result:
    result = read_record(Result, job_dir / RESULT_FILE)
    assert result is not None, (job_dir / LOG_FILE).read_text()
    return result


def events_of(job_dir: Path) -> list[EventLine]:
    events, _ = read_events(job_dir / EVENTS_FILE, 0)
    return events


def metrics_of(job_dir: Path) -> dict[str, dict[str, Any]]:
    """Step key -> data; the last event of each key."""
    return {event.key: event.data for event in events_of(job_dir) if event.type == "metrics"}


def adapter_bytes(job_dir: Path) -> bytes:
    """The final model's weights; of a whole model the list of its files with their hashes."""
    last = result_of(job_dir).checkpoints[-1]
    name = "files.json" if last.form == "model" else "adapter_model.safetensors"
    return (job_dir / last.path / name).read_bytes()
