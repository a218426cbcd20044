"""Every code path of the four tutorials, as printed, against a live server.

Changed are only the address and the key (through the environment, where the client looks for them)
and the ids that the tutorial's own server gave out. The public model names are aliases of the
embedded base. Tutorial 001's code is for `openai` 0.28 and runs with that client in tests/clients;
here its steps run with the current one.
"""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.tutorials.data import MARV, PRETTY_MARV, shakespeare
from tunesmith.cli.background import Server

ENDED = ("succeeded", "failed", "cancelled")
PATIENCE_S = 120.0


@pytest.fixture
def tutorial(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The reader's shell: a directory for the files, and key and address in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", server.api_key)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def wait(job_id: str) -> Any:
    """The job once it has ended; a tutorial's reader waits for the e-mail."""
    client = OpenAI()
    give_up = time.monotonic() + PATIENCE_S
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in ENDED:
        assert time.monotonic() < give_up, job.status
        time.sleep(0.05)
    return job


def upload(content: bytes) -> str:
    Path("train.jsonl").write_bytes(content)
    client = OpenAI()
    with open("train.jsonl", "rb") as file:  # noqa: PTH123 - the tutorials' own way
        return client.files.create(file=file, purpose="fine-tune").id


@pytest.fixture(scope="module")
def tuned(server: Server) -> Any:
    """Tutorial 000's "50 examples" job, run once for the tests that use its model."""
    client = OpenAI(base_url=server.base_url, api_key=server.api_key)
    file = client.files.create(file=("train.jsonl", shakespeare(50)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="gpt-3.5-turbo")
    give_up = time.monotonic() + PATIENCE_S
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ENDED:
        assert time.monotonic() < give_up, job.status
        time.sleep(0.05)
    assert job.status == "succeeded", job.error
    return job


class Test000GPT4StepByStep:
    def test_upload(self, tutorial: pytest.MonkeyPatch) -> None:
        Path("train.jsonl").write_bytes(shakespeare(50))
        client = OpenAI()
        file = client.files.create(
            file=open("train.jsonl", "rb"),  # noqa: SIM115, PTH123 - as printed
            purpose="fine-tune",
        )
        assert file.id.startswith("file-")
        assert file.bytes == len(shakespeare(50))
        assert (file.filename, file.object) == ("train.jsonl", "file")
        assert (file.purpose, file.status) == ("fine-tune", "processed")

    def test_five_examples_are_too_few(self, tutorial: pytest.MonkeyPatch) -> None:
        client = OpenAI()
        job = client.fine_tuning.jobs.create(
            training_file=upload(shakespeare(5)), model="gpt-3.5-turbo"
        )
        job = wait(job.id)
        assert job.status == "failed" and job.fine_tuned_model is None
        assert job.error and job.error.code == "invalid_n_examples"
        assert job.error.message == (
            "Training file has 5 example(s), but must have at least 10 examples"
        )

    def test_jobs_list_retrieve_cancel_events(self, tutorial: pytest.MonkeyPatch) -> None:
        client = OpenAI()
        created = client.fine_tuning.jobs.create(
            training_file=upload(shakespeare(50)),
            model="gpt-3.5-turbo",
            hyperparameters={"n_epochs": 50},
        )
        assert created.id in [job.id for job in client.fine_tuning.jobs.list(limit=10).data]
        assert client.fine_tuning.jobs.retrieve(created.id).id == created.id
        client.fine_tuning.jobs.cancel(created.id)
        assert wait(created.id).status == "cancelled"
        events = client.fine_tuning.jobs.list_events(fine_tuning_job_id=created.id, limit=10)
        assert {event.object for event in events.data} == {"fine_tuning.job.event"}

    def test_the_event_object(self, tutorial: pytest.MonkeyPatch, tuned: Any) -> None:
        client = OpenAI()
        events = list(client.fine_tuning.jobs.list_events(fine_tuning_job_id=tuned.id, limit=100))
        last = next(event for event in events if event.type == "metrics")
        assert last.level == "info" and isinstance(last.data, dict)
        step = last.data["step"]
        assert last.message == f"Step {step}/{step}: training loss={last.data['train_loss']:.2f}"
        assert 0 <= last.data["train_mean_token_accuracy"] <= 1
        first = [event for event in events if event.type == "metrics"][-1]
        assert isinstance(first.data, dict)
        assert last.data["train_loss"] < first.data["train_loss"]

    def test_use_the_model(self, tutorial: pytest.MonkeyPatch, tuned: Any) -> None:
        assert tuned.fine_tuned_model.startswith("ft:gpt-3.5-turbo:personal::")
        client = OpenAI()
        completion = client.chat.completions.create(
            model=tuned.fine_tuned_model,
            messages=[
                {
                    "role": "system",
                    "content": "You are a teaching assistant for Machine Learning. You should "
                    "help to user to answer on his question.",
                },
                {"role": "user", "content": "What is a loss function?"},
            ],
        )
        message = completion.choices[0].message
        assert message.role == "assistant" and message.content
        assert message.function_call is None and message.tool_calls is None

    def test_delete_the_model(self, tutorial: pytest.MonkeyPatch) -> None:
        client = OpenAI()
        job = client.fine_tuning.jobs.create(
            training_file=upload(shakespeare(10)),
            model="gpt-3.5-turbo",
            hyperparameters={"n_epochs": 1},
        )
        name = wait(job.id).fine_tuned_model
        assert client.models.delete(name).deleted
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


class Test001SevenMinuteGuide:
    def test_three_examples_are_too_few(self, tutorial: pytest.MonkeyPatch) -> None:
        job = OpenAI().fine_tuning.jobs.create(training_file=upload(MARV), model="gpt-3.5-turbo")
        error = wait(job.id).error
        assert error.message == "Training file has 3 example(s), but must have at least 10 examples"

    def test_a_name_that_no_job_gave(self, tutorial: pytest.MonkeyPatch) -> None:
        with pytest.raises(openai.NotFoundError, match="custom_model_id"):
            OpenAI().chat.completions.create(
                model="ft:gpt-3.5-turbo:custom_model_id",
                messages=[
                    {"role": "system", "content": "You are a helpful assistant."},
                    {"role": "user", "content": "Hello!"},
                ],
            )

    def test_refine_an_already_adjusted_model(
        self, tutorial: pytest.MonkeyPatch, tuned: Any
    ) -> None:
        job = OpenAI().fine_tuning.jobs.create(
            training_file=upload(MARV * 4),
            model=tuned.fine_tuned_model,
            hyperparameters={"n_epochs": 1},
        )
        done = wait(job.id)
        assert done.status == "succeeded", done.error
        assert done.fine_tuned_model.startswith("ft:gpt-3.5-turbo:personal::")
        assert done.fine_tuned_model != tuned.fine_tuned_model

    def test_a_request_over_the_models_limit_is_refused(
        self, tutorial: pytest.MonkeyPatch, tuned: Any
    ) -> None:
        with pytest.raises(openai.BadRequestError) as refusal:
            OpenAI().chat.completions.create(
                model=tuned.fine_tuned_model,
                messages=[{"role": "user", "content": "words " * 20_000}],
            )
        assert refusal.value.code == "context_length_exceeded"


class Test002FineTuning101:
    def test_training_and_testing(self, tutorial: pytest.MonkeyPatch) -> None:
        client = OpenAI()
        rows = shakespeare(30).splitlines(keepends=True)
        job = client.fine_tuning.jobs.create(
            training_file=upload(b"".join(rows[:20])),
            validation_file=upload(b"".join(rows[20:])),
            model="gpt-4o-mini",
            hyperparameters={"n_epochs": 2},
        )
        done = wait(job.id)
        assert done.status == "succeeded", done.error
        assert done.fine_tuned_model.startswith("ft:gpt-4o-mini:personal::")
        metrics = [
            event.data
            for event in client.fine_tuning.jobs.list_events(job.id, limit=100)
            if isinstance(event.data, dict) and "full_valid_loss" in event.data
        ]
        assert len(metrics) == 2 and 0 <= metrics[0]["full_valid_mean_token_accuracy"] <= 1
        # "Generate samples from both the base and fine-tuned models to compare results."
        for model in ("gpt-4o-mini", done.fine_tuned_model):
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "What is overfitting?"}]
            )
            assert answer.model == model

    def test_an_unknown_file_is_named(self, tutorial: pytest.MonkeyPatch) -> None:
        with pytest.raises(openai.BadRequestError, match="file-abc123") as refusal:
            OpenAI().fine_tuning.jobs.create(training_file="file-abc123", model="gpt-4o-mini")
        assert refusal.value.param == "training_file"

    def test_an_integration_that_cannot_be_fed_is_told_and_harms_nothing(
        self, tutorial: pytest.MonkeyPatch, server: Server
    ) -> None:
        """The tutorial's curl. Here is neither W&B's library nor a key for it."""
        integrations = [{"type": "wandb", "wandb": {"project": "custom-wandb-project"}}]
        body = {
            "model": "gpt-4o-mini-2024-07-18",
            "training_file": upload(shakespeare(10)),
            "integrations": integrations,
        }
        request = urllib.request.Request(
            f"{server.base_url}/fine_tuning/jobs",
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {server.api_key}",
            },
        )
        with urllib.request.urlopen(request) as response:
            job = json.load(response)
        assert job["integrations"] == integrations
        assert wait(job["id"]).status == "succeeded"
        said = "The metrics of this job were not passed on to Weights & Biases"
        give_up = time.monotonic() + 60
        while not any(
            event.level == "warn" and event.message.startswith(said)
            for event in OpenAI().fine_tuning.jobs.list_events(job["id"])
        ):
            assert time.monotonic() < give_up
            time.sleep(0.2)


class Test003ComprehensiveGuide:
    def test_rows_over_several_lines_are_explained(self, tutorial: pytest.MonkeyPatch) -> None:
        job = OpenAI().fine_tuning.jobs.create(
            training_file=upload(PRETTY_MARV), model="gpt-3.5-turbo"
        )
        error = wait(job.id).error
        assert error.code == "invalid_training_file" and error.param == "training_file"
        assert "Example 1 cannot be parsed" in error.message
        assert "one line" in error.message
