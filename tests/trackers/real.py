"""Jobs followed by the real libraries; run by `make trackers`, which makes their environment."""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.jobs.test_tracking import WANDB, follow, rows
from tests.unit.jobs.world import World, end, steps, validate

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ["TRACKERS_PYTHON"])
KEY = "local-" + "0123456789" * 4


@pytest.fixture(autouse=True)
def their_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(PYTHON))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def followed_job(world: World, num_steps: int = 6, **fields: Any) -> str:
    """A job whose tracker's process ends in the middle of it and is started again."""
    job = world.create(**fields)
    supervisor = world.supervisor()
    supervisor.tick()
    validate(world.only_process(), total_steps=num_steps)
    supervisor.tick()
    process = world.only_process()
    steps(process, num_steps // 2, total_steps=num_steps)
    supervisor.tick()
    # Stops while the job runs, as a worker that is drained does.
    follow(world, 200, until=lambda: rows(world, job.id)[0].sent_seq > 0)
    assert rows(world, job.id)[0].sent_seq > 0
    steps(process, num_steps - num_steps // 2, total_steps=num_steps)
    end(process, "succeeded", total_steps=num_steps)
    supervisor.tick()
    follow(world, 300)
    warnings = [one.message for one in world.events(job.id) if one.level == "warn"]
    assert warnings == []
    assert [row.state for row in rows(world, job.id)] == ["done"]
    return job.id


def no_secret_in(directory: Path, secret: str) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    world = World(tmp_path / "data", tensorboard=True)
    job_id = followed_job(world)
    directory = world.context.job_dir(job_id) / "trackers" / "0-tensorboard"
    read = (
        "import json, sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "found = EventAccumulator(sys.argv[1]); found.Reload()\n"
        "print(json.dumps([[e.step, e.value, e.wall_time] for e in found.Scalars('train_loss')]))"
    )
    done = subprocess.run([PYTHON, "-c", read, directory], capture_output=True, text=True)
    assert json.loads(done.stdout) == [[step, 0.5, 1_800_000_000.0] for step in range(1, 7)]


def test_wandb_without_a_server_writes_files_to_sync(tmp_path: Path) -> None:
    world = World(tmp_path / "data", wandb_offline=True)
    job_id = followed_job(world, integrations=[WANDB])
    directory = world.context.job_dir(job_id) / "trackers" / "0-wandb" / "wandb"
    found = sorted(directory.glob(f"offline-run-*/run-{job_id}.wandb"))
    assert len(found) == 2
    assert all(b"train_loss" in path.read_bytes() for path in found)


class WandbServer:
    """As much of Weights & Biases' own API as its library needs; keeps runs and their points."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.exits: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                given = self.headers.get("authorization", "").removeprefix("Basic ")
                if given:
                    outer.keys.add(base64.b64decode(given).decode().partition(":")[2])
                out = json.dumps(outer.answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            do_GET = do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/graphql":
            asked = json.loads(body)
            return {"data": self._graphql(asked["operationName"], asked.get("variables") or {})}
        if path.endswith("/file_stream"):
            told = json.loads(body)
            lines = told.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.history += [json.loads(line) for line in lines]
            if "exitcode" in told:
                self.exits.append(told["exitcode"])
        return {}

    def _graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"name": "p", "entity": {"name": "team"}}
        if operation == "Viewer":
            return {
                "viewer": {"id": "u", "entity": "team", "username": "u", "teams": {"edges": []}}
            }
        if operation == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            return {"model": {"id": "m", **project, "bucket": run and self._resumed(run)}}
        if operation == "UpsertBucket":
            known = self.runs.setdefault(variables["name"], {"variables": variables})
            bucket = {"id": "b", "name": variables["name"], "project": project}
            bucket |= {"displayName": variables["displayName"], "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": known["variables"] is variables}}
        if operation == "CreateRunFiles":
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        return {}

    def _resumed(self, run: dict[str, Any]) -> dict[str, Any]:
        last = self.history[-1] if self.history else {}
        return {
            "id": "b",
            "name": run["variables"]["name"],
            "displayName": run["variables"]["displayName"],
            "historyLineCount": len(self.history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(last)]) if last else "[]",
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(last),
            "config": "{}",
            "tags": run["variables"]["tags"],
            "wandbConfig": json.dumps({"t": 1}),
        }


def test_wandb_gets_the_run_at_its_base_url(tmp_path: Path) -> None:
    server = WandbServer()
    world = World(tmp_path / "data", wandb_base_url=server.url, wandb_api_key=KEY)
    job_id = followed_job(world, integrations=[WANDB])
    run = server.runs[job_id]["variables"]
    assert run["project"] == "p"
    assert run["displayName"] == job_id
    assert run["tags"][:3] == ["openai/finetune", "openai/tiny", f"openai/{job_id}"]
    assert json.loads(run["config"])["n_epochs"]["value"] == 1
    points = {line["_step"]: line["train_loss"] for line in server.history if "train_loss" in line}
    assert points == dict.fromkeys(range(1, 7), 0.5)
    assert len([line for line in server.history if "train_loss" in line]) == 6
    assert server.keys == {KEY}
    no_secret_in(world.settings.data_dir, KEY)
    assert any(server.url in text for text in world.messages(job_id))


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_it_answers(f"{url}/health")
            yield url
        finally:
            os.killpg(process.pid, 15)
            process.wait(60)


def wait_until_it_answers(url: str, limit_s: float = 300.0) -> None:
    give_up = time.monotonic() + limit_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < give_up
            time.sleep(0.5)
        else:
            return


def asked(url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{path}", data, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_mlflow_has_one_run_with_each_point_once(tmp_path: Path, mlflow: str) -> None:
    world = World(tmp_path / "data", mlflow_url=mlflow)
    job_id = followed_job(world)
    name = "experiments/get-by-name?experiment_name=tunesmith/proj_default"
    experiment = asked(mlflow, name)["experiment"]["experiment_id"]
    [run] = asked(mlflow, "runs/search", {"experiment_ids": [experiment]})["runs"]
    assert run["info"]["run_name"] == job_id
    assert run["info"]["status"] == "FINISHED"
    parameters = {one["key"]: one["value"] for one in run["data"]["params"]}
    assert parameters["n_epochs"] == "1"
    path = f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=train_loss"
    points = asked(mlflow, path)["metrics"]
    assert sorted((one["step"], one["value"]) for one in points) == [
        (step, 0.5) for step in range(1, 7)
    ]


def test_an_mlflow_that_is_down_is_trouble_and_no_failure(tmp_path: Path) -> None:
    world = World(tmp_path / "data", mlflow_url="http://127.0.0.1:9")
    job = world.create()
    supervisor = world.supervisor()
    supervisor.tick()
    validate(world.only_process(), total_steps=1)
    supervisor.tick()
    process = world.only_process()
    steps(process, 1, total_steps=1)
    end(process, "succeeded", total_steps=1)
    supervisor.tick()
    follow(world, 200)
    assert world.job(job.id).status == "succeeded"
    [row] = rows(world, job.id)
    assert (row.state, row.num_failures) == ("open", 1)
    assert any("It is tried again" in text for text in world.messages(job.id))
