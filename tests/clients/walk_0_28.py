"""Walks the calls of openai 0.28.1, in the style of its tutorials, against a live server.

PYTHONPATH=<client> python walk_0_28.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import openai

POLL_S = 0.1
PATIENCE_S = 120.0
ENDED = ("succeeded", "failed", "cancelled")
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello!"},
]


def main(base_url: str, api_key: str, model: str, path: str) -> None:
    openai.api_base = base_url
    openai.api_key = api_key
    file_id = walk_files(Path(path))
    tuned = walk_jobs(model, file_id)
    for name in (model, tuned):
        walk_chat(name)
        walk_forms(name)
    walk_models(model, tuned)
    assert openai.File.delete(file_id).deleted
    print(f"openai {openai.version.VERSION}: all calls passed")


def walk_files(path: Path) -> str:
    with path.open("rb") as data:
        file = openai.File.create(file=data, purpose="fine-tune")
    assert file.object == "file" and file.status == "processed"
    assert openai.File.retrieve(file.id).bytes == path.stat().st_size
    assert file.id in [entry.id for entry in openai.File.list().data]
    assert openai.File.download(file.id) == path.read_bytes()
    return str(file.id)


def walk_jobs(model: str, file_id: str) -> str:
    job = openai.FineTuningJob.create(training_file=file_id, model=model)
    assert job.object == "fine_tuning.job"
    assert job.id in [entry.id for entry in openai.FineTuningJob.list(limit=10).data]
    job = wait(job.id, ENDED)
    assert job.status == "succeeded", job.error
    events = openai.FineTuningJob.list_events(id=job.id, limit=10).data
    assert events[0].message == "The job has successfully completed"
    other = openai.FineTuningJob.create(
        training_file=file_id, model=model, hyperparameters={"n_epochs": 50}
    )
    assert openai.FineTuningJob.cancel(other.id).id == other.id
    assert wait(other.id, ENDED).status == "cancelled"
    return str(job.fine_tuned_model)


def walk_chat(model: str) -> None:
    options: dict[str, Any] = {"model": model, "messages": MESSAGES, "temperature": 0}
    completion = openai.ChatCompletion.create(max_tokens=24, **options)
    text = completion.choices[0].message["content"]
    pieces = openai.ChatCompletion.create(max_tokens=24, stream=True, **options)
    assert "".join(piece.choices[0].delta.get("content", "") for piece in pieces) == text


def walk_forms(model: str) -> None:
    """Functions, as they were called then, and completed texts."""
    parameters = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    completion = openai.ChatCompletion.create(
        model=model,
        messages=MESSAGES,
        max_tokens=100,
        functions=[{"name": "count", "parameters": parameters}],
        function_call={"name": "count"},
    )
    call = completion.choices[0].message["function_call"]
    assert call["name"] == "count" and json.loads(call["arguments"])["n"] in (1, 2)
    text = openai.Completion.create(model=model, prompt="On Monday", max_tokens=4, temperature=0)
    pieces = openai.Completion.create(
        model=model, prompt="On Monday", max_tokens=4, temperature=0, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces) == text.choices[0].text
    assert len(openai.Embedding.create(model=model, input="Monday").data[0].embedding) > 8


def walk_models(base: str, tuned: str) -> None:
    assert {base, tuned} <= {entry.id for entry in openai.Model.list().data}
    assert openai.Model.retrieve(tuned).id == tuned
    assert openai.Model.delete(tuned).deleted
    for call in (lambda: openai.Model.retrieve(tuned), lambda: openai.FineTune.list()):
        try:
            call()
        except openai.error.InvalidRequestError as error:
            assert error.user_message
        else:
            raise AssertionError("an error was expected")


def wait(job_id: str, statuses: tuple[str, ...]) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        job = openai.FineTuningJob.retrieve(job_id)
        if job.status in statuses:
            return job
        assert time.monotonic() < give_up, f"{job_id} is still {job.status}"
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
