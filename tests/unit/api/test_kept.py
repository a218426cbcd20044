"""Keys and light answers are kept while nobody writes, and not a moment longer."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.callers import caller
from tests.service import KEY, ROW, Service
from tunesmith.api.kept import MAX_ANSWER_BYTES, KeptAnswers
from tunesmith.api.keyring import Keyring
from tunesmith.ids import SystemRng
from tunesmith.ops.telemetry import JsonFormatter
from tunesmith.store.db import open_database
from tunesmith.store.repo import bases, keys

REVOKE = """
import sys
from pathlib import Path
from tunesmith.store.db import open_database
from tunesmith.store.repo import keys
with open_database(Path(sys.argv[1])).write() as conn:
    for row in keys.list_all(conn):
        keys.revoke(conn, row.id, 1)
"""


class Counting:
    """An application that counts its calls and takes its time."""

    def __init__(self, body: bytes = b"{}", status: int = 200) -> None:
        self.calls = 0
        self.body = body
        self.status = status
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await self.gate.wait()
        headers = [(b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Counter:
    """What the database says of commits."""

    def __init__(self) -> None:
        self.value = 1

    def __call__(self) -> int:
        return self.value


async def get(kept: KeptAnswers, path: str = "/v1/models", project: str = "proj_a") -> list[Any]:
    scope = {"path": path, "query_string": b"", "state": {"caller": caller(project_id=project)}}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        # As the frame around it does, which must not stick to what is kept.
        if "headers" in message:
            message["headers"].append((b"x-request-id", b"req_1"))
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    await kept(scope, receive, send)
    return [sent[0]["status"], len(sent[0]["headers"]), sent[1]["body"]]


def test_an_answer_is_given_again_until_something_is_written() -> None:
    async def run() -> None:
        app, version = Counting(), Counter()
        kept = KeptAnswers(app, version)
        assert [await get(kept) for _ in range(3)] == [[200, 2, b"{}"]] * 3
        assert app.calls == 1
        version.value += 1
        await get(kept)
        assert app.calls == 2

    asyncio.run(run())


def test_projects_and_paths_have_answers_of_their_own() -> None:
    async def run() -> None:
        app = Counting()
        kept = KeptAnswers(app, Counter())
        for project in ("proj_a", "proj_b"):
            for path in ("/v1/models", "/v1/models/x"):
                await get(kept, path, project)
        assert app.calls == 4

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "status"), [(b"x" * (MAX_ANSWER_BYTES + 1), 200), (b"{}", 404), (b"{}", 503)]
)
def test_errors_and_large_answers_are_not_kept(body: bytes, status: int) -> None:
    async def run() -> None:
        app = Counting(body, status)
        kept = KeptAnswers(app, Counter())
        assert await get(kept) == await get(kept) == [status, 2, body]
        assert app.calls == 2

    asyncio.run(run())


def test_requests_at_the_same_time_are_answered_by_one() -> None:
    async def run() -> None:
        app = Counting()
        kept = KeptAnswers(app, Counter())
        app.gate.clear()
        waiting = [asyncio.create_task(get(kept)) for _ in range(10)]
        await asyncio.sleep(0)
        app.gate.set()
        assert await asyncio.gather(*waiting) == [[200, 2, b"{}"]] * 10
        assert app.calls == 1

    asyncio.run(run())


def test_nobody_gets_an_answer_from_before_a_write_that_came_first() -> None:
    async def run() -> None:
        app, version = Counting(b"old"), Counter()
        kept = KeptAnswers(app, version)
        app.gate.clear()
        first = asyncio.create_task(get(kept))
        await asyncio.sleep(0)
        version.value += 1
        second = asyncio.create_task(get(kept))
        await asyncio.sleep(0)
        app.gate.set()
        await asyncio.gather(first, second)
        assert app.calls == 2
        app.body = b"new"
        # Only what began after the write is kept.
        assert (await get(kept))[2] == b"old"
        version.value += 1
        assert (await get(kept))[2] == b"new"

    asyncio.run(run())


def test_a_follower_asks_for_itself_when_the_first_one_fails() -> None:
    async def run() -> None:
        app = Counting()

        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            app.calls += 1
            await app.gate.wait()
            raise ConnectionError

        kept = KeptAnswers(failing, Counter())
        app.gate.clear()
        waiting = [asyncio.create_task(get(kept)) for _ in range(3)]
        await asyncio.sleep(0)
        app.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionError] * 3
        assert app.calls == 3

    asyncio.run(run())


def test_a_change_is_seen_by_the_very_next_request(service: Service) -> None:
    assert len(service.client.models.list().data) == 2
    with service.db.write() as conn:
        bases.set_alias(conn, "gpt-3.5-turbo", bases.list_all(conn)[0].name, 1)
    assert len(service.client.models.list().data) == 3
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune").id
    job = service.client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file).id
    assert service.client.fine_tuning.jobs.retrieve(job).status == "validating_files"
    service.client.fine_tuning.jobs.cancel(job)
    assert service.client.fine_tuning.jobs.retrieve(job).status == "cancelled"


def test_a_key_that_another_process_revokes_is_refused_at_once(service: Service) -> None:
    assert service.http.get("/v1/models").status_code == 200
    command = [sys.executable, "-c", REVOKE, str(service.settings.data_dir)]
    subprocess.run(command, check=True, timeout=60)
    assert service.http.get("/v1/models").status_code == 401


class Standing:
    value = 1000.0

    def now(self) -> float:
        return self.value


def test_a_kept_key_ends_by_the_clock(tmp_path: Path) -> None:
    db, clock = open_database(tmp_path), Standing()
    with db.write() as conn:
        _, secret = keys.create(conn, b"p", SystemRng(), name="x", now=1000, expires_at=1010)
    ring = Keyring(db, b"p", clock, tmp_path)
    assert asyncio.run(ring.caller(secret)) is not None
    clock.value = 1009.9
    assert asyncio.run(ring.caller(secret)) is not None
    clock.value = 1010.0
    assert asyncio.run(ring.caller(secret)) is None
    db.close()


def test_no_key_is_in_the_log_the_metrics_or_the_database(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    made = service.http.post("/v1/tunesmith/keys", json={"name": "x"}).json()["value"]
    wrong = "sk-proj-" + "w" * 43
    with caplog.at_level(logging.DEBUG):
        for secret in (KEY, made, wrong):
            headers = {"authorization": f"Bearer {secret}"}
            service.anonymous().get("/v1/models", headers=headers)
            service.anonymous().get(f"/v1/models/{secret}", headers=headers)
    lines = "\n".join(JsonFormatter("api").format(record) for record in caplog.records)
    held = lines.encode() + service.http.get("/metrics").content
    for path in service.settings.data_dir.glob("tunesmith.db*"):
        held += path.read_bytes()
    assert len(caplog.records) >= 6
    for secret in (KEY, made, wrong):
        assert secret.encode() not in held
