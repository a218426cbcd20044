"""/v1/fine_tuning/jobs through the official client, without a worker: jobs stay as created."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.service import BASE, ROW, Service
from tunesmith.ids import SystemRng
from tunesmith.store.repo import checkpoints, events, jobs
from tunesmith.store.repo.checkpoints import CheckpointRow
from tunesmith.store.repo.events import NewEvent

SIX = {"validating_files", "queued", "running", "succeeded", "failed", "cancelled"}


@pytest.fixture
def file_id(service: Service) -> str:
    return service.client.files.create(file=ROW * 12, purpose="fine-tune").id


def test_a_new_job_is_as_the_service_shows_it(service: Service, file_id: str) -> None:
    answer = service.http.post(
        "/v1/fine_tuning/jobs",
        json={
            "model": "gpt-4o-mini",
            "training_file": file_id,
            "validation_file": file_id,
            "suffix": "kiln_ai.123",
            "seed": 7,
            "metadata": {"team": "a"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            "a_field_of_the_future": [1, 2],
        },
    )
    assert answer.status_code == 200
    job = answer.json()
    hyperparameters = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert job.pop("id").startswith("ftjob-")
    assert job.pop("created_at") > 1_700_000_000
    assert job == {
        "object": "fine_tuning.job",
        "finished_at": None,
        "model": "gpt-4o-mini",
        "fine_tuned_model": None,
        "organization_id": "org-personal",
        "status": "validating_files",
        "training_file": file_id,
        "validation_file": file_id,
        "result_files": [],
        "trained_tokens": None,
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": 7,
        "error": None,
        "estimated_finish": None,
        "integrations": [],
        "metadata": {"team": "a"},
        "user_provided_suffix": "kiln_ai.123",
        "usage_metrics": None,
        "shared_with_openai": False,
        "eval_id": None,
    }


def test_the_older_place_of_hyperparameters_works(service: Service, file_id: str) -> None:
    given: Any = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    job = service.client.fine_tuning.jobs.create(
        model=BASE, training_file=file_id, hyperparameters=given
    )
    assert job.hyperparameters.n_epochs == 3
    assert job.method is not None and job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.learning_rate_multiplier == 0.5
    assert 0 <= job.seed < 2**31


def test_the_shape_of_the_update_can_be_chosen(service: Service, file_id: str) -> None:
    given: Any = {"lora_rank": 8, "lora_alpha": 16.5, "lora_dropout": 0.1}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": given}}
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file_id, method=method)
    assert given.items() <= job.hyperparameters.model_dump().items()


def test_a_job_on_preferences(service: Service, file_id: str) -> None:
    given: Any = {"beta": 0.1, "n_epochs": 2, "batch_size": "auto"}
    method: Any = {"type": "dpo", "dpo": {"hyperparameters": given}}
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file_id, method=method)
    assert job.method is not None and job.method.type == "dpo"
    assert job.method.dpo is not None and job.method.dpo.hyperparameters is not None
    shown = job.method.dpo.hyperparameters.model_dump()
    assert shown == given | {"learning_rate_multiplier": "auto"}
    # As the published service answers.
    assert job.hyperparameters is None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "gpt-9"}, "model"),
        ({"training_file": "file-nothing"}, "training_file"),
        ({"validation_file": "file-nothing"}, "validation_file"),
        ({"suffix": ""}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"method": {"type": "reinforcement"}}, "method"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}, None),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, None),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"lora_targets": ["c_attn"]}}, "hyperparameters.lora_targets"),
        ({"integrations": [{"type": "magic"}]}, "integrations[0].type"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
    ],
)
def test_what_is_known_to_be_wrong_is_refused_at_once(
    service: Service, file_id: str, change: dict[str, Any], param: str | None
) -> None:
    body = {"model": BASE, "training_file": file_id, **change}
    answer = service.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 400, answer.text
    assert param is None or answer.json()["error"]["param"] == param
    assert list(service.client.fine_tuning.jobs.list()) == []


def test_a_file_of_another_purpose_is_refused(service: Service) -> None:
    file = service.client.files.create(file=ROW * 12, purpose="batch")
    with pytest.raises(openai.BadRequestError, match="'batch'") as caught:
        service.client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    assert caught.value.param == "training_file"


def test_one_idempotency_key_is_one_job(service: Service, file_id: str) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"model": BASE, "training_file": file_id}
    made = [
        service.http.post("/v1/fine_tuning/jobs", json=body, headers=headers).json()
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(list(service.client.fine_tuning.jobs.list())) == 1
    other = service.http.post("/v1/fine_tuning/jobs", json=body | {"seed": 1}, headers=headers)
    assert other.status_code == 400


def test_lists_page_newest_first_and_filter(service: Service, file_id: str) -> None:
    client = service.client.fine_tuning.jobs
    made = [
        client.create(
            model=BASE,
            training_file=file_id,
            metadata={"kind": "even" if number % 2 == 0 else "odd", "a.b[0]": "x"},
        ).id
        for number in range(5)
    ]
    bare = client.create(model=BASE, training_file=file_id).id
    assert [job.id for job in client.list(limit=2)] == [bare, *made[::-1]]
    assert [job.id for job in client.list(metadata={"kind": "odd", "a.b[0]": "x"})] == [
        made[3],
        made[1],
    ]
    assert list(client.list(metadata={"kind": "none"})) == []
    without = service.http.get("/v1/fine_tuning/jobs", params={"metadata": "null"}).json()
    assert [job["id"] for job in without["data"]] == [bare]
    assert (without["first_id"], without["last_id"], without["has_more"]) == (bare, bare, False)


def test_events_come_newest_first_in_disjoint_pages(service: Service, file_id: str) -> None:
    client = service.client.fine_tuning.jobs
    job = client.create(model=BASE, training_file=file_id)
    metrics = {"step": 1, "train_loss": 0.5, "train_mean_token_accuracy": 0.75, "total_steps": 9}
    with service.db.write() as conn:
        new = [
            NewEvent(f"step:{n}", f"Step {n}", 1, type="metrics", data=metrics) for n in range(30)
        ]
        events.append(conn, SystemRng(), job.id, new)
    newest = client.list_events(job.id, limit=1).data
    assert newest[0].message == "Step 29"
    assert newest[0].data == metrics
    seen = [event.id for event in client.list_events(job.id, limit=7)]
    assert len(seen) == len(set(seen)) == 32
    oldest = list(client.list_events(job.id))[-2:]
    assert [event.message for event in oldest] == [
        f"Validating training file: {file_id}",
        f"Created fine-tuning job: {job.id}",
    ]
    with pytest.raises(openai.BadRequestError):
        client.list_events(job.id, after="ftevent-nothing")


def test_checkpoints_show_what_was_measured(service: Service, file_id: str) -> None:
    client = service.client.fine_tuning.jobs
    job = client.create(model=BASE, training_file=file_id)
    with service.db.write() as conn:
        for step in (4, 8):
            name = f"ft:{BASE}:personal::AbCdEfG{step}:ckpt-step-{step}"
            metrics = {"step": step, "train_loss": 1.5, "train_mean_token_accuracy": 0.5}
            row = CheckpointRow(f"ftckpt_{step}", job.id, step, name, metrics, 5)
            checkpoints.insert(conn, row)
    shown = list(client.checkpoints.list(job.id, limit=1))
    assert [checkpoint.step_number for checkpoint in shown] == [8, 4]
    assert shown[0].metrics.train_loss == 1.5
    assert shown[0].metrics.valid_loss is None
    assert shown[0].fine_tuning_job_id == job.id


def test_cancel_pause_and_resume_follow_the_states(service: Service, file_id: str) -> None:
    client = service.client.fine_tuning.jobs
    job = client.create(model=BASE, training_file=file_id)
    for refused in (client.pause, client.resume):
        with pytest.raises(openai.BadRequestError):
            refused(job.id)
    with service.db.write() as conn:
        jobs.update(conn, job.id, status="queued")
    assert client.pause(job.id).status == "paused"  # type: ignore[comparison-overlap]
    assert client.resume(job.id).status == "queued"
    assert client.cancel(job.id).status == "cancelled"
    ended = client.retrieve(job.id)
    assert ended.finished_at is not None
    assert ended.status in SIX
    for refused in (client.cancel, client.pause, client.resume):
        with pytest.raises(openai.BadRequestError):
            refused(job.id)


def test_a_failed_job_says_why(service: Service, file_id: str) -> None:
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file_id)
    error = {"code": "invalid_n_examples", "message": "Too few.", "param": "training_file"}
    with service.db.write() as conn:
        jobs.update(conn, job.id, status="failed", error=error, finished_at=3)
    shown = service.client.fine_tuning.jobs.retrieve(job.id).error
    assert shown is not None
    assert shown.model_dump() == error


@pytest.mark.parametrize("call", ["retrieve", "cancel", "pause", "resume", "list_events"])
def test_an_unknown_job_is_not_found(service: Service, call: str) -> None:
    with pytest.raises(openai.NotFoundError, match="ftjob-nothing"):
        getattr(service.client.fine_tuning.jobs, call)("ftjob-nothing")
    with pytest.raises(openai.NotFoundError):
        service.client.fine_tuning.jobs.checkpoints.list("ftjob-nothing")
