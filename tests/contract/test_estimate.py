"""What a job would take, before it is created."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.callers import OWNER
from tests.service import BASE, ROW, Service
from tunesmith.api import data, estimate
from tunesmith.data.render import Renderer
from tunesmith.data.rows import read_any
from tunesmith.data.sequences import sequences
from tunesmith.jobs import rate
from tunesmith.jobs.rate import Rate
from tunesmith.tariff import Rates

PATH = "/v1/tunesmith/jobs/estimate"


def asked(service: Service, content: bytes = ROW * 12, **body: Any) -> Any:
    file = service.client.files.create(file=content, purpose="fine-tune")
    answer = service.http.post(PATH, json={"model": BASE, "training_file": file.id, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_tokens_steps_and_hyperparameters_are_those_of_the_job(service: Service) -> None:
    found = asked(service)
    with service.db.read() as conn:
        base = estimate.bases.get(conn, BASE)
        [file] = estimate.files.page(conn, OWNER.project).rows
    assert base is not None
    renderer = Renderer.load(base.path)
    rows = read_any(service.blobs.path(file.id))
    num_tokens = sum(len(each.example.ids) for row in rows for each in sequences(renderer, row))
    # 12 rows: as many epochs as show 100 examples, one row a step.
    assert found["hyperparameters"]["n_epochs"] == 8
    assert (found["num_examples"], found["num_tokens"]) == (12, num_tokens)
    assert found["trained_tokens"] == 8 * num_tokens
    assert found["num_steps"] == 96
    assert 0 < found["num_supervised_tokens"] < num_tokens
    assert (found["seconds"], found["problem"], found["num_ahead"]) == (None, None, 0)
    assert service.client.fine_tuning.jobs.list().data == []


def test_what_is_asked_for_is_resolved_and_the_queue_is_counted(service: Service) -> None:
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune")
    service.client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    found = asked(service, hyperparameters={"n_epochs": 2, "batch_size": 5, "lora_rank": 4})
    assert found["num_steps"] == 5
    assert found["hyperparameters"]["lora_rank"] == 4
    assert found["num_ahead"] == 1


def test_time_and_price_come_from_the_speed_of_finished_jobs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "past_rate", lambda *_: Rate(10.0, "a job", 5_000_000))
    priced = {"*": Rates(machine_hour=Decimal(36))}
    monkeypatch.setattr(rate, "local_costs", lambda _, *rest: LOCAL_COSTS(priced, *rest))
    found = asked(service, hyperparameters={"n_epochs": 1})
    assert found["seconds"] == found["trained_tokens"] / 10
    assert (found["peak_bytes"], found["rate_source"]) == (5_000_000, "a job")
    assert float(found["prices"][0]["usd"]) == pytest.approx(found["seconds"] / 100, abs=0.005)


LOCAL_COSTS = rate.local_costs


def test_the_speed_is_measured_where_that_is_asked_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "BUDGET_S", 0.1)
    found = asked(service, measure=True)
    assert found["seconds"] > 0
    assert found["rate_source"].startswith("measured just now")
    assert found["peak_bytes"] > 1e6


def test_training_every_weight_is_measured_as_that(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "BUDGET_S", 0.05)
    one_epoch = {"n_epochs": 1}
    small = asked(service, measure=True, hyperparameters=one_epoch)
    whole = asked(service, measure=True, hyperparameters=one_epoch | {"finetuning_type": "full"})
    # Weights, gradients and two moments in fp32 against the same of an adapter of a tenth.
    assert whole["peak_bytes"] > small["peak_bytes"] + 8 * 2_700_000


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (ROW * 11 + b'{"messages": []}\n', "Example 12"),
        (ROW * 11 + ROW.replace(b'"a"', json.dumps("a " * 20_000).encode()), "1 examples are"),
    ],
)
def test_what_the_validation_would_refuse_is_told(
    content: bytes, problem: str, service: Service
) -> None:
    told = asked(service, content)["problem"]
    assert problem in told
    assert "The job failed" not in told


def test_what_creating_the_job_would_refuse_is_refused(service: Service) -> None:
    answer = service.http.post(PATH, json={"model": "no-such", "training_file": "file-none"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_available")
    answer = service.http.post(PATH, json={"model": BASE, "training_file": "file-none"})
    assert answer.json()["error"]["param"] == "training_file"
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune")
    body = {"model": BASE, "training_file": file.id, "hyperparameters": {"n_epochs": 0}}
    answer = service.http.post(PATH, json=body)
    assert answer.json()["error"]["param"] == "hyperparameters.n_epochs"


def test_large_files_are_counted_by_a_process_of_their_own(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = asked(service)
    monkeypatch.setattr(data, "MAX_BYTES_HERE", 0)
    assert asked(service) == here


def test_a_count_that_fails_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_BYTES_HERE", 0)
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune")
    service.blobs.path(file.id).unlink()
    answer = service.http.post(PATH, json={"model": BASE, "training_file": file.id})
    assert answer.status_code == 500
    told = answer.json()["error"]["message"]
    assert f"The count of tokens of '{file.id}' failed: FileNotFoundError" in told
    assert "The job can be created all the same." in told
