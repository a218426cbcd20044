"""How rows were learned and what checkpoints answered, over HTTP."""

from __future__ import annotations

import numpy as np
import pytest

from tests.service import BASE, ROW, Service
from tunesmith.jobdir.layout import ROWS_FILE
from tunesmith.jobdir.samples import Answer, Prompt, Sample, Samples, write_samples

NAN = float("nan")


@pytest.fixture
def job_id(service: Service) -> str:
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune")
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    (service.settings.jobs_dir / job.id).mkdir(parents=True)
    return job.id


def record(service: Service, job_id: str, *losses: tuple[float, float]) -> None:
    np.save(service.settings.jobs_dir / job_id / ROWS_FILE, np.array(losses, np.float32))


def rows(service: Service, job_id: str, **query: str | int) -> list[int]:
    answer = service.http.get(f"/v1/tunesmith/jobs/{job_id}/rows", params=query)
    assert answer.status_code == 200, answer.text
    return [row["row"] for row in answer.json()["data"]]


def test_rows_come_worst_first_and_in_pages(service: Service, job_id: str) -> None:
    record(service, job_id, (2.0, 0.5), (1.0, 0.75), (0.5, 1.0), (3.0, NAN))
    assert rows(service, job_id) == [4, 3, 2, 1]
    assert rows(service, job_id, order="change") == [3, 2, 1, 4]
    answer = service.http.get(f"/v1/tunesmith/jobs/{job_id}/rows", params={"limit": 2}).json()
    assert answer["has_more"] is True
    assert answer["last_id"] == "row-3"
    assert answer["data"][0] == {
        "id": "row-4",
        "object": "tunesmith.job.row",
        "row": 4,
        "first_loss": 3.0,
        "last_loss": None,
        "change": None,
    }
    assert answer["data"][1]["change"] == 0.5
    assert rows(service, job_id, limit=2, after="row-3") == [2, 1]
    assert rows(service, job_id, after="row-1") == []


def test_a_job_without_figures_has_an_empty_page(service: Service, job_id: str) -> None:
    assert rows(service, job_id) == []
    (service.settings.jobs_dir / job_id / ROWS_FILE).write_bytes(b"torn")
    assert rows(service, job_id) == []


@pytest.mark.parametrize("query", [{"order": "name"}, {"after": "row-0"}, {"after": "row-9"}])
def test_what_cannot_be_asked_of_rows(query: dict[str, str], service: Service, job_id: str) -> None:
    record(service, job_id, (1.0, 1.0))
    answer = service.http.get(f"/v1/tunesmith/jobs/{job_id}/rows", params=query)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(query))


def test_samples_are_shown_as_they_were_taken(service: Service, job_id: str) -> None:
    path = f"/v1/tunesmith/jobs/{job_id}/samples"
    empty = service.http.get(path).json()
    assert (empty["prompts"], empty["samples"], empty["skipped"]) == ([], [], False)
    prompts = [Prompt("validation_file", 3, "<|user|>Rain?", "Yes.")]
    taken = [Sample(0, 0, [Answer("No", 64, False)]), Sample(9, 3, [Answer("Yes.", 3, True)])]
    write_samples(service.settings.jobs_dir / job_id, Samples(prompts, taken))
    found = service.http.get(path).json()
    assert found["object"] == "tunesmith.job.samples"
    assert found["fine_tuning_job_id"] == job_id
    assert found["prompts"][0]["text"] == "<|user|>Rain?"
    assert found["samples"][1] == {
        "step": 9,
        "epoch": 3,
        "answers": [{"text": "Yes.", "num_tokens": 3, "stops": True}],
    }


@pytest.mark.parametrize("name", ["rows", "samples"])
def test_an_unknown_job_and_no_key(name: str, service: Service, job_id: str) -> None:
    answer = service.http.get(f"/v1/tunesmith/jobs/ftjob-none/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "fine_tune_not_found")
    assert service.anonymous().get(f"/v1/tunesmith/jobs/{job_id}/{name}").status_code == 401
