"""A row's tokens with their losses, what a job is made of, and a tuned model's files."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import OWNER
from tests.service import BASE, ROW, Service, make_service
from tests.tiny_base import write_tiny_base
from tunesmith.bases import describe
from tunesmith.ids import SystemClock
from tunesmith.store.repo import bases, jobs, models
from tunesmith.store.repo.models import ModelRow


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The API in this process, the engine in its own."""
    root = tmp_path_factory.mktemp("heat")
    service = make_service(root / "data")
    tiny = describe(write_tiny_base(root / "tiny"), "tiny", SystemClock())
    with service.db.write() as conn:
        bases.insert(conn, tiny)
    environment = {
        **os.environ,
        "TUNESMITH_DATA": str(root / "data"),
        "TUNESMITH_ENGINE_THREADS": "1",
    }
    command = [sys.executable, "-m", "tunesmith.serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        assert json.loads(engine.stdout.readline())["ready"]
        yield service
        engine.terminate()


def make_job(service: Service, model: str, content: bytes = ROW * 12, **body: Any) -> str:
    file = service.client.files.create(file=content, purpose="fine-tune")
    job = service.client.fine_tuning.jobs.create(model=model, training_file=file.id, **body)
    return job.id


def test_each_token_has_the_loss_that_the_model_gives_it(live: Service) -> None:
    job_id = make_job(live, "tiny")
    path = f"/v1/tunesmith/jobs/{job_id}/rows/2/tokens"
    found = live.http.get(path, params={"model": "tiny"}).json()
    [sequence] = found["sequences"]
    tokens = sequence["tokens"]
    assert (found["row"], found["model"]) == (2, "tiny")
    assert [tokens[0]["loss"], tokens[0]["choice"]] == [None, None]
    assert all(token["loss"] > 0 for token in tokens[1:])
    trained = [token["loss"] for token in tokens if token["trained"]]
    assert sequence["loss"] == pytest.approx(sum(trained) / len(trained))
    # A random model finds all of its few tokens about as likely.
    assert sequence["loss"] == pytest.approx(math.log(live_vocabulary(live)), rel=0.5)
    assert "b" in "".join(token["text"] for token in tokens if token["trained"])


def live_vocabulary(live: Service) -> int:
    with live.db.read() as conn:
        base = bases.get(conn, "tiny")
    assert base is not None
    return base.vocab_size


def test_both_answers_of_a_pair(live: Service) -> None:
    said = {"role": "assistant", "content": "fox"}
    row = {
        "input": {"messages": [{"role": "user", "content": "quick"}]},
        "preferred_output": [said],
        "non_preferred_output": [{**said, "content": "dog"}],
    }
    content = (json.dumps(row) + "\n").encode() * 10
    job_id = make_job(live, "tiny", content, method={"type": "dpo"})
    path = f"/v1/tunesmith/jobs/{job_id}/rows/1/tokens?model=tiny"
    found = live.http.get(path).json()["sequences"]
    assert [each["name"] for each in found] == ["preferred", "rejected"]
    assert all(each["loss"] > 0 for each in found)


@pytest.mark.parametrize(
    ("row", "model", "status", "param"),
    [
        ("13", "tiny", 404, "row"),
        ("0", "tiny", 404, "row"),
        ("1", "no-such", 404, "model"),
        ("1", "", 400, "model"),
    ],
)
def test_what_cannot_be_shown(row: str, model: str, status: int, param: str, live: Service) -> None:
    job_id = make_job(live, "tiny")
    query = {"model": model} if model else {}
    answer = live.http.get(f"/v1/tunesmith/jobs/{job_id}/rows/{row}/tokens", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_the_recipe_makes_the_same_job_again(service: Service) -> None:
    asked = {"n_epochs": 2, "lora_rank": 4}
    job_id = make_job(service, BASE, suffix="again", seed=5, hyperparameters=asked)
    path = f"/v1/tunesmith/jobs/{job_id}/recipe"
    found = service.http.get(path).json()
    assert found["plan"] is None
    assert (found["base"], len(found["base_fingerprint"])) == (BASE, 64)
    assert found["training_file"]["deleted"] is False
    again = service.http.post("/v1/fine_tuning/jobs", json=found["request"]).json()
    first, second = (
        service.http.get(f"/v1/tunesmith/jobs/{id_}").json() for id_ in (job_id, again["id"])
    )
    for name in ("seed", "training_file", "user_provided_suffix", "method", "model"):
        assert first["job"][name] == second["job"][name]
    assert first["requested"] == second["requested"] == asked
    service.client.files.delete(found["training_file"]["id"])
    job_dir = service.settings.jobs_dir / job_id
    job_dir.mkdir(parents=True)
    (job_dir / "plan.json").write_text('{"device": "cpu", "total_steps": 24}')
    found = service.http.get(path).json()
    assert found["training_file"]["deleted"] is True
    assert (found["took"], found["prices"]) == ({}, [])
    assert found["plan"]["total_steps"] == 24


def test_the_files_of_a_tuned_model_come_as_one_archive(service: Service) -> None:
    job_id = make_job(service, BASE)
    sha256 = "a" * 64
    directory = service.settings.adapters_dir / sha256
    directory.mkdir(parents=True)
    weights = os.urandom(3 << 20)
    (directory / "adapter_model.safetensors").write_bytes(weights)
    (directory / "adapter_config.json").write_text("{}")
    name = f"ft:{BASE}:org:it/s:abc"
    with service.db.write() as conn:
        row = ModelRow(name, OWNER.project, "tuned", BASE, BASE, sha256, job_id, 1, "org")
        models.insert(conn, row)
        jobs.update(conn, job_id, fine_tuned_model=name)
    answer = service.http.get(f"/v1/tunesmith/models/{name}/files")
    assert answer.headers["content-type"] == "application/zip"
    assert 'filename="ft-' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors"]
        assert archive.read("adapter_model.safetensors") == weights
    assert (
        service.http.get(f"/v1/tunesmith/jobs/{job_id}/recipe").json()["adapter_sha256"] == sha256
    )
    refused = service.http.get(f"/v1/tunesmith/models/{BASE}/files")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    assert service.http.get("/v1/tunesmith/models/none/files").status_code == 404
