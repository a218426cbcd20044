"""A job from file to model on the running server: each answer on the way is as published."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from openai import OpenAI

from tests.contract.spec import check
from tests.service import ROW
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server

ENDED = ("succeeded", "failed", "cancelled")
EPOCHS, ROWS = 3, 10


def call(server: Server, method: str, path: str, body: Any = None) -> Any:
    """The answer of the server, checked."""
    headers = {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.base_url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, found, content = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        status, found, content = error.code, error.headers, error.read()
    check(
        method,
        "/v1" + path.partition("?")[0],
        status,
        {k.lower(): v for k, v in found.items()},
        content,
    )
    return json.loads(content)


@pytest.fixture(scope="module")
def job(server: Server, client: OpenAI) -> Any:
    """A job that has ended, with a validation file."""
    file = client.files.create(file=ROW * ROWS, purpose="fine-tune").id
    body = {
        "model": EMBEDDED_NAME,
        "training_file": file,
        "validation_file": file,
        "hyperparameters": {"n_epochs": EPOCHS},
        "seed": 1,
    }
    made = call(server, "POST", "/fine_tuning/jobs", body)
    assert made["status"] == "validating_files"
    give_up = time.monotonic() + 120
    while made["status"] not in ENDED:
        assert time.monotonic() < give_up
        time.sleep(0.1)
        made = call(server, "GET", f"/fine_tuning/jobs/{made['id']}")
    return made


def test_the_job_tells_what_it_did(job: Any) -> None:
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert job["fine_tuned_model"].startswith(f"ft:{EMBEDDED_NAME}:personal::")
    assert job["hyperparameters"]["n_epochs"] == EPOCHS
    assert job["hyperparameters"]["batch_size"] == 1
    assert job["method"]["supervised"]["hyperparameters"] == job["hyperparameters"]
    assert job["trained_tokens"] > 0
    assert job["finished_at"] >= job["created_at"]
    assert len(job["result_files"]) == 1


def test_it_cost_what_was_foretold(server: Server, job: Any) -> None:
    cost = call(server, "GET", f"/tunesmith/jobs/{job['id']}/cost")
    assert cost["estimate"]["tokens"] == cost["actual"]["tokens"] == job["trained_tokens"]
    assert cost["actual"]["machine_seconds"] >= 0


def test_its_events_come_in_the_published_order(server: Server, job: Any) -> None:
    page = call(server, "GET", f"/fine_tuning/jobs/{job['id']}/events?limit=100")
    events = page["data"][::-1]
    # Warnings of the data checks stand between the published ones.
    messages = [
        event["message"]
        for event in events
        if event["type"] == "message" and event["level"] == "info"
    ]
    metrics = [event["data"] for event in events if event["type"] == "metrics"]
    file = job["training_file"]
    assert messages[:4] == [
        f"Created fine-tuning job: {job['id']}",
        f"Validating training file: {file} and validation file: {file}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
    ]
    assert messages[-2:] == [
        f"New fine-tuned model created: {job['fine_tuned_model']}",
        "The job has successfully completed",
    ]
    assert [data["step"] for data in metrics] == list(range(1, EPOCHS * ROWS + 1))
    assert {"train_loss", "train_mean_token_accuracy", "total_steps"} <= metrics[0].keys()
    assert {"valid_loss", "full_valid_loss"} <= metrics[-1].keys()


def test_its_results_are_a_table(client: OpenAI, job: Any) -> None:
    table = base64.b64decode(client.files.content(job["result_files"][0]).read()).decode()
    head, *rows = table.splitlines()
    assert head == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, EPOCHS * ROWS + 1))


def test_every_kept_checkpoint_answers_by_name(server: Server, job: Any) -> None:
    page = call(server, "GET", f"/fine_tuning/jobs/{job['id']}/checkpoints")
    names = [each["fine_tuned_model_checkpoint"] for each in page["data"]]
    assert names[0] == job["fine_tuned_model"]
    assert len(names) == EPOCHS
    listed = [model["id"] for model in call(server, "GET", "/models")["data"]]
    for name in names:
        assert name in listed
        messages = [{"role": "user", "content": "a"}]
        body = {"model": name, "messages": messages, "temperature": 0, "max_tokens": 4}
        assert call(server, "POST", "/chat/completions", body)["model"] == name


def test_a_deleted_model_answers_no_more(server: Server, job: Any) -> None:
    name = call(server, "GET", f"/fine_tuning/jobs/{job['id']}/checkpoints")["data"][-1][
        "fine_tuned_model_checkpoint"
    ]
    assert call(server, "DELETE", f"/models/{name}")["deleted"]
    body = {"model": name, "messages": [{"role": "user", "content": "a"}]}
    assert call(server, "POST", "/chat/completions", body)["error"]["code"] == "model_not_found"
