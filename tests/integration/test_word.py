"""Word of a job's end, on a live server: to a receiver with the official client, and by e-mail.

Receivers go down, workers are killed; two workers run all the time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import OpenAI

from tests.mailbox import Mailbox
from tests.receiver import Receiver
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server
from tunesmith.store.db import open_database
from tunesmith.store.repo import outbox

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "canary-password-of-smtp"
PROMPT = "canary prompt about zebras"
ROW = "canary row about giraffes"
METRICS = "canary-token-of-metrics"
TYPES = ["fine_tuning.job.succeeded", "fine_tuning.job.cancelled"]


@dataclass
class Scene:
    server: Server
    box: Mailbox
    client: OpenAI
    environment: dict[str, str]
    file_id: str

    def cancelled_job(self) -> str:
        """A job that has ended at once."""
        jobs = self.client.fine_tuning.jobs
        job = jobs.create(model=EMBEDDED_NAME, training_file=self.file_id)
        jobs.cancel(job.id)
        wait_for(lambda: jobs.retrieve(job.id).status == "cancelled")
        return job.id

    def deliveries(self, job_id: str) -> list[dict[str, object]]:
        path = f"/tunesmith/webhook_deliveries?job_id={job_id}"
        return self.client.get(path, cast_to=dict[str, list[dict[str, object]]])["data"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    data = tmp_path_factory.mktemp("word") / "data"
    with Mailbox(login=("ts", PASSWORD)) as box, contextlib.ExitStack() as stack:
        environment = {
            "TUNESMITH_SMTP_URL": box.url,
            "TUNESMITH_SMTP_STARTTLS": "false",
            "TUNESMITH_OUTBOUND_ALLOW": '["127.0.0.1"]',
            "TUNESMITH_DELIVERY_RETRY_S": "0.2",
            "TUNESMITH_LOG_LEVEL": "debug",
            "TUNESMITH_METRICS_TOKEN": METRICS,
            "TUNESMITH_TENSORBOARD": "true",
        }
        server = stack.enter_context(background_server(data, environment))
        client = OpenAI(base_url=server.base_url, api_key=server.api_key)
        line = {
            "messages": [
                {"role": "user", "content": ROW},
                {"role": "assistant", "content": "They are tall."},
            ]
        }
        rows = (json.dumps(line) + "\n").encode() * 10
        file_id = client.files.create(file=rows, purpose="fine-tune").id
        yield Scene(server, box, client, {**os.environ, **environment}, file_id)


@pytest.fixture(scope="module", autouse=True)
def second_worker(scene: Scene) -> Iterator[None]:
    command = [sys.executable, "-m", "tunesmith.jobs", "--data", str(scene.server.data)]
    with (scene.server.data / "log" / "second.log").open("wb") as log:
        process = subprocess.Popen(command, env=scene.environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            # One test may have killed it.
            assert process.wait(60) in (0, -signal.SIGKILL)


def wait_for(seen: Callable[[], object], limit_s: float = 60.0) -> None:
    give_up = time.monotonic() + limit_s
    while not seen():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def events_of(receiver: Receiver, job_id: str) -> list[dict[str, object]]:
    return [event for event in receiver.events if event["data"] == {"id": job_id}]


@contextlib.contextmanager
def endpoint(scene: Scene, url: str) -> Iterator[str]:
    """Its secret."""
    webhooks = scene.client.webhooks
    made = webhooks.create(name="test", url=url, event_types=TYPES)  # type: ignore[arg-type]
    yield made.signing_secret
    webhooks.delete(made.id)


def workers(scene: Scene) -> list[int]:
    """Of this server and of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            environment = (path.parent / "environ").read_text()
            if "tunesmith.jobs" in words and str(scene.server.data) in environment + str(words):
                found.append(int(path.parent.name))
    return found


def parent_of(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])


def workers_log(scene: Scene) -> str:
    logs = (scene.server.data / "log" / name for name in ("worker.log", "second.log"))
    return "".join(path.read_text(errors="replace") for path in logs)


def holder(scene: Scene) -> int:
    """The process that has a delivery in its hands."""
    db = open_database(scene.server.data)
    with db.read() as conn:
        [(owner, _)] = outbox.holders(conn)
    db.close()
    return int(owner.split(".")[0])


@contextlib.contextmanager
def documented_receiver(scene: Scene) -> Iterator[subprocess.Popen[str]]:
    """The program of docs/notifications.md, on a port of its own, with an endpoint for it."""
    text = (ROOT / "docs" / "notifications.md").read_text()
    program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1]
    with Receiver() as free:
        pass
    with endpoint(scene, free.url) as secret:
        for written, ours in (
            ("http://127.0.0.1:8000/v1", scene.server.base_url),
            ("sk-...", scene.server.api_key),
            ("whsec_...", secret),
            ('("0.0.0.0", 8080)', f'("127.0.0.1", {free.port})'),
        ):
            assert written in program
            program = program.replace(written, ours)
        command = [sys.executable, "-u", "-c", program]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            yield process
            process.kill()


def test_a_job_tells_its_receiver_and_its_user(scene: Scene) -> None:
    with (
        documented_receiver(scene) as documented,
        Receiver() as receiver,
        endpoint(scene, receiver.url) as secret,
    ):
        job = scene.client.fine_tuning.jobs.create(
            model=EMBEDDED_NAME,
            training_file=scene.file_id,
            hyperparameters={"n_epochs": 1},
            metadata={"notify_email": "me@example.com"},
        )
        wait_for(lambda: receiver.requests and scene.box.messages)
        [(headers, body)] = receiver.requests
        event = scene.client.webhooks.unwrap(body, headers, secret=secret)
        assert event.type == "fine_tuning.job.succeeded"
        assert event.data.id == job.id
        model = scene.client.fine_tuning.jobs.retrieve(event.data.id).fine_tuned_model
        [mail] = scene.box.messages
        assert model is not None and model in mail.get_content()  # type: ignore[attr-defined]
        tracked = scene.server.data / "jobs" / job.id / "trackers" / "0-tensorboard"
        wait_for(lambda: any(b"train_loss" in one.read_bytes() for one in tracked.glob("events*")))
        assert documented.stdout is not None
        assert documented.stdout.readline() == f"{model}\n"


def test_a_receiver_that_comes_back_gets_it_late(scene: Scene) -> None:
    with Receiver() as first:
        pass
    with endpoint(scene, first.url):
        job_id = scene.cancelled_job()
        wait_for(lambda: scene.deliveries(job_id)[0]["attempts"])
        assert scene.deliveries(job_id)[0]["state"] == "waiting"
        with Receiver(first.port) as again:
            wait_for(lambda: again.requests)
            assert len(events_of(again, job_id)) == 1
            wait_for(lambda: scene.deliveries(job_id)[0]["state"] == "delivered")


def test_workers_killed_between_commit_and_delivery_lose_nothing(scene: Scene) -> None:
    """The server's own comes back by itself; the other is gone for good."""
    with Receiver() as receiver, endpoint(scene, receiver.url):
        alive = workers(scene)
        for process_id in alive:
            os.kill(process_id, signal.SIGSTOP)
        job_id = scene.cancelled_job()
        assert scene.deliveries(job_id)[0]["state"] == "waiting"
        own = [one for one in alive if parent_of(one) == scene.server.process.pid]
        for process_id in alive:
            os.kill(process_id, signal.SIGKILL if process_id in own else signal.SIGCONT)
        wait_for(lambda: events_of(receiver, job_id))
        wait_for(lambda: len(workers(scene)) == len(alive))
        assert len(events_of(receiver, job_id)) == 1


def test_two_workers_send_each_event_once(scene: Scene) -> None:
    with Receiver() as receiver, endpoint(scene, receiver.url):
        jobs = [scene.cancelled_job() for _ in range(10)]
        wait_for(lambda: len(receiver.requests) >= len(jobs))
        time.sleep(1.0)
        assert sorted(event["data"]["id"] for event in receiver.events) == sorted(jobs)


def test_a_worker_killed_in_the_act_leaves_its_delivery_to_another(scene: Scene) -> None:
    with Receiver() as receiver, endpoint(scene, receiver.url):
        receiver.hold.clear()
        job_id = scene.cancelled_job()
        wait_for(lambda: receiver.requests)
        started_s = time.monotonic()
        # Whichever of them holds it: one survives.
        os.kill(holder(scene), signal.SIGKILL)
        wait_for(lambda: len(receiver.requests) > 1, 30)
        receiver.hold.set()
        first, second = (headers["webhook-id"] for headers, _ in receiver.requests)
        assert first == second
        assert time.monotonic() - started_s < 30
        wait_for(lambda: scene.deliveries(job_id)[0]["state"] == "delivered")


def test_no_log_tells_a_secret_or_a_prompt(scene: Scene) -> None:
    with Receiver() as receiver, endpoint(scene, receiver.url) as secret:
        scene.client.chat.completions.create(
            model=EMBEDDED_NAME, messages=[{"role": "user", "content": PROMPT}], max_tokens=4
        )
        with pytest.raises(Exception, match="no-such-model"):
            scene.client.completions.create(model="no-such-model", prompt=PROMPT)
        scene.client.webhooks.rotate_secret(scene.client.webhooks.list().data[0].id)
        scene.cancelled_job()
        wait_for(lambda: receiver.requests and "delivered" in workers_log(scene))
    found = [path for path in scene.server.data.rglob("*") if path.suffix in (".log", ".txt")]
    names = {path.name for path in found}
    assert {"api.log", "worker.log", "engine.log", "second.log", "trainer.log", "log.txt"} <= names
    canaries = [scene.server.api_key, PASSWORD, PROMPT, ROW, METRICS, secret, secret[6:]]
    for path in found:
        text = path.read_text(errors="replace")
        assert [canary for canary in canaries if canary in text] == [], path
