"""Walks every call of the official Python client, 1.x to 3.x, against a live server.

PYTHONPATH=<client> python walk.py BASE_URL API_KEY MODEL TRAINING_FILE
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
QUESTION: Any = [{"role": "user", "content": "What's the capital of France?"}]
DAYS = ("Monday", "Tuesday")
FUNCTION: Any = {
    "name": "pick",
    "parameters": {
        "type": "object",
        "properties": {"day": {"enum": list(DAYS)}},
        "required": ["day"],
        "additionalProperties": False,
    },
}
NAMED: Any = {"type": "function", "function": {"name": "pick"}}


def main(base_url: str, api_key: str, model: str, path: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key=api_key)
    file_id = walk_files(client, Path(path))
    job = walk_job(client, model, file_id)
    walk_checkpoints(client, job)
    for name in (model, job.fine_tuned_model, first_checkpoint(client, job)):
        walk_chat(client, name)
        walk_forms(client, name)
    walk_steering(client, model, file_id)
    walk_models(client, model, job.fine_tuned_model)
    walk_errors(client, base_url, model)
    assert client.files.delete(file_id).deleted
    print(f"openai {openai.__version__}: all calls passed")


def walk_files(client: Any, path: Path) -> str:
    with path.open("rb") as data:
        file = client.files.create(file=data, purpose="fine-tune")
    assert (file.object, file.purpose, file.bytes) == ("file", "fine-tune", path.stat().st_size)
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.retrieve(file.id).filename == path.name
    assert client.files.content(file.id).read() == path.read_bytes()
    assert file.id in [entry.id for entry in client.files.list(purpose="fine-tune")]
    assert file.id in [entry.id for entry in client.files.list(limit=1)]  # all pages
    return str(file.id)


def walk_job(client: Any, model: str, file_id: str) -> Any:
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=file_id,
        validation_file=file_id,
        suffix="walk",
        seed=1,
        hyperparameters={"n_epochs": 4, "batch_size": 4},
    )
    assert (job.object, job.status) == ("fine_tuning.job", "validating_files")
    assert client.fine_tuning.jobs.list(limit=1).data[0].id == job.id
    job = wait(client, job.id, ENDED)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model.startswith(f"ft:{model}:") and job.trained_tokens > 0
    assert job.hyperparameters.n_epochs == 4 and job.finished_at >= job.created_at
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))  # all pages
    assert events[0].message == "The job has successfully completed"
    assert events[-1].message == f"Created fine-tuning job: {job.id}"
    assert len({event.id for event in events}) == len(events)
    metrics = [event.data for event in events if event.type == "metrics"]
    assert [entry["step"] for entry in metrics[::-1]] == list(range(1, len(metrics) + 1))
    assert {"train_loss", "train_mean_token_accuracy", "total_steps"} <= set(metrics[0])
    assert client.files.content(job.result_files[0]).read()
    return job


def walk_checkpoints(client: Any, job: Any) -> None:
    points = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert len(points) == 3
    assert points[0].fine_tuned_model_checkpoint == job.fine_tuned_model
    assert points[1].fine_tuned_model_checkpoint.endswith(f":ckpt-step-{points[1].step_number}")
    assert points[0].metrics.full_valid_loss is not None


def first_checkpoint(client: Any, job: Any) -> str:
    points = client.fine_tuning.jobs.checkpoints.list(job.id).data
    return str(points[-1].fine_tuned_model_checkpoint)


def walk_chat(client: Any, model: str) -> None:
    options: Any = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**options)
    assert whole.model == model and whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(
        client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **options
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def walk_forms(client: Any, model: str) -> None:
    """Answers in a form: called tools, JSON of a schema, completed and scored texts, vectors."""
    options: Any = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 100}
    tools = [{"type": "function", "function": FUNCTION}]
    forced = client.chat.completions.create(tools=tools, tool_choice=NAMED, **options).choices[0]
    assert forced.finish_reason == "tool_calls"
    assert json.loads(forced.message.tool_calls[0].function.arguments)["day"] in DAYS
    wanted = {"name": "day", "schema": FUNCTION["parameters"], "strict": True}
    answer = client.chat.completions.create(
        response_format={"type": "json_schema", "json_schema": wanted}, **options
    )
    assert json.loads(answer.choices[0].message.content)["day"] in DAYS
    echo = client.completions.create(
        model=model, prompt=["On Monday", "On"], max_tokens=1, echo=True, logprobs=1
    )
    assert [choice.text[:2] for choice in echo.choices] == ["On", "On"]
    assert echo.choices[0].logprobs.token_logprobs[0] is None
    vectors = client.embeddings.create(model=model, input=["Monday", "Tuesday"]).data
    assert abs(sum(value * value for value in vectors[1].embedding) - 1) < 1e-3


def walk_steering(client: Any, model: str, file_id: str) -> None:
    """Pause, resume and cancel, on a job that would run long."""
    jobs = client.fine_tuning.jobs
    long: Any = {"type": "supervised"}
    long["supervised"] = {"hyperparameters": {"n_epochs": 50, "batch_size": 1}}
    job = jobs.create(model=model, training_file=file_id, method=long)
    wait(client, job.id, ("running",))
    jobs.pause(job.id)
    wait(client, job.id, ("paused",))
    jobs.resume(job.id)
    wait(client, job.id, ("running",))
    assert jobs.cancel(job.id).id == job.id
    assert wait(client, job.id, ENDED).status == "cancelled"


def walk_models(client: Any, base: str, tuned: str) -> None:
    names = {model.id for model in client.models.list()}
    assert {base, tuned} <= names
    assert client.models.retrieve(tuned).id == tuned
    assert client.models.delete(tuned).deleted
    try:
        client.models.retrieve(tuned)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.request_id
    else:
        raise AssertionError("a deleted model was found")


def walk_errors(client: Any, base_url: str, model: str) -> None:
    for call, kind in (
        (lambda: client.files.retrieve("file-nothing"), openai.NotFoundError),
        (lambda: client.chat.completions.create(model=model, messages=[]), openai.BadRequestError),
        (lambda: openai.OpenAI(base_url=base_url, api_key="sk-no").models.list(), AUTH),
    ):
        try:
            call()
        except kind as error:
            assert error.body["message"]
        else:
            raise AssertionError(f"{kind.__name__} was expected")


AUTH = openai.AuthenticationError


def wait(client: Any, job_id: str, statuses: tuple[str, ...]) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        assert job.status not in ENDED, (job.status, job.error)
        assert time.monotonic() < give_up, f"{job_id} is still {job.status}"
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
