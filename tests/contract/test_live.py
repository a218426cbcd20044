"""The stream of events: complete, in order, without repetition, whatever happens to it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.callers import OWNER
from tests.service import BASE, KEY, ROW, Checked, Service
from tunesmith.api import feed, live, news
from tunesmith.ids import SystemRng
from tunesmith.jobs import commands
from tunesmith.store.repo import events, jobs, keys, projects
from tunesmith.store.repo.events import NewEvent
from tunesmith.store.repo.projects import ProjectRow

PATH = "/v1/tunesmith/events"
Message = dict[str, Any]


class Stream:
    """What a browser's EventSource makes of the answer."""

    def __init__(self) -> None:
        self.status = 0
        self.last_id: str | None = None
        self.sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = asyncio.Event()
        self._blocks: deque[str] = deque()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.sent.put_nowait(b"")
        else:
            self.sent.put_nowait(message.get("body", b""))
            if not message.get("more_body"):
                self.sent.put_nowait(None)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def next_event(self) -> Any:
        return await self.next("fine_tuning.job.event")

    async def next_job(self) -> Any:
        return await self.next("tunesmith.job")

    async def next(self, name: str) -> Any:
        """The data of the next frame of that name; others are passed over."""
        while True:
            while self._blocks:
                pairs = [line.partition(": ") for line in self._blocks.popleft().split("\n")]
                fields = {key: value for key, _, value in pairs}
                self.last_id = fields.get("id", self.last_id)
                if fields.get("event") == name:
                    return json.loads(fields["data"])
            part = await self.sent.get()
            assert part is not None, "the stream has ended"
            # Parts are whole frames.
            self._blocks += part.decode().split("\n\n")


@asynccontextmanager
async def opened(service: Service, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    assert isinstance(service.app, Checked)
    app = service.app.app
    stream = Stream()
    lines = {"authorization": f"Bearer {KEY}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        "server": ("testserver", 80),
        "client": ("test", 1),
        "scheme": "http",
        "state": {},
    }
    task = asyncio.create_task(app(scope, stream.receive, stream.send))
    assert await stream.sent.get() == b""
    try:
        yield stream
    finally:
        stream.left.set()
        await task


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def make_job(service: Service) -> str:
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune")
    return service.client.fine_tuning.jobs.create(model=BASE, training_file=file.id).id


def happen(service: Service, job_id: str, *steps: int) -> None:
    """Steps of a trainer, as the worker stores them."""
    new = [
        NewEvent(
            f"step:{step}", f"Step {step}", 0, type="metrics", data={"step": step, "train_loss": 1}
        )
        for step in steps
    ]
    with service.db.write() as conn:
        jobs.update(conn, job_id, last_step=steps[-1], total_steps=100)
        events.append(conn, SystemRng(), job_id, new)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "POLL_S", 0.01)


def test_events_come_as_they_happen_with_the_state_of_their_job(service: Service) -> None:
    job_id = make_job(service)

    async def test() -> None:
        async with opened(service) as stream:
            assert stream.status == 200
            waiting = await stream.next_job()
            assert (waiting["id"], waiting["num_ahead"], waiting["step"]) == (job_id, 0, 0)
            assert waiting["job"] == service.client.fine_tuning.jobs.retrieve(job_id).to_dict()
            happen(service, job_id, 1)
            event = await stream.next_event()
            assert event["fine_tuning_job_id"] == job_id
            assert event["data"] == {"step": 1, "train_loss": 1}
            assert event["id"] == stream.last_id
            now = await stream.next_job()
            assert (now["step"], now["total_steps"]) == (1, 100)

    run(test)


def test_only_what_was_asked_for(service: Service) -> None:
    mine, other = make_job(service), make_job(service)

    async def test() -> None:
        async with opened(service, f"job={mine}") as stream:
            assert (await stream.next_job())["id"] == mine
            happen(service, other, 1, 2)
            happen(service, mine, 7)
            assert (await stream.next_event())["data"]["step"] == 7

    run(test)


def test_a_client_that_goes_on_misses_and_repeats_nothing(service: Service) -> None:
    job_id, other = make_job(service), make_job(service)

    async def test() -> None:
        found: list[int] = []
        headers = {"last_event_id": "ftevent-0"}
        for first in range(1, 40, 4):
            async with opened(service, **headers) as stream:
                happen(service, job_id, first, first + 1)
                # Leaves in the middle: one of the events is not read, the next not even sent.
                while not found or found[-1] < first:
                    event = await stream.next_event()
                    if event["fine_tuning_job_id"] == job_id and event["type"] == "metrics":
                        found.append(event["data"]["step"])
                headers = {"last_event_id": event["id"]}
            happen(service, job_id, first + 2, first + 3)
            happen(service, other, first)
        async with opened(service, f"job={job_id}", **headers) as stream:
            while found[-1] < 40:
                found.append((await stream.next_event())["data"]["step"])
        assert found == list(range(1, 41))

    run(test)


def test_what_was_missed_comes_in_parts_of_any_size(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the list of events, with the events of another job in between."""
    job_id, other = make_job(service), make_job(service)
    for step in range(1, 8):
        happen(service, job_id, step)
        happen(service, other, step)
    with service.db.read() as conn:
        all_ids = [row.id for row in events.after_seq(conn, job_id)]
        numbers = {each: events.number_of(conn, each) for each in all_ids}
        end, _ = events.last_place(conn)
    for chunk, (place, after) in itertools.product((1, 2, 5, 50), enumerate(all_ids)):
        monkeypatch.setattr(news, "CHUNK", chunk)
        ids: list[str] = []
        number = numbers[after]
        while (part := news.missed(service.db, OWNER.project, job_id, number, end)) is not None:
            number = part[0]
            lines = part[1].decode().split("\n")
            ids += [line[4:] for line in lines if line.startswith("id: ")]
        assert ids == all_ids[place + 1 :]


def test_a_new_data_directory_has_a_place_to_go_on_from(service: Service) -> None:
    async def test() -> None:
        async with opened(service) as stream:
            await stream.next("open")
            assert stream.last_id == "ftevent-0"
        job_id = await asyncio.to_thread(make_job, service)
        async with opened(service, last_event_id="ftevent-0") as stream:
            event = await stream.next_event()
            assert event["message"] == f"Created fine-tuning job: {job_id}"

    run(test)


def test_a_silent_stream_beats_and_a_long_one_ends(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(live, "MAX_STREAM_S", 0.2)

    async def test() -> None:
        async with opened(service) as stream:
            parts = []
            while (part := await stream.sent.get()) is not None:
                parts.append(part)
        assert parts[0] == b"retry: 1000\n\n"
        assert parts.count(b":\n\n") >= 3
        assert parts[-1] == b""

    run(test)


def test_a_project_hears_of_its_own_jobs_only(service: Service) -> None:
    theirs = make_job(service)
    pepper = keys.load_pepper(service.settings.data_dir)
    with service.db.write() as conn:
        projects.insert(conn, ProjectRow("proj_b", "B", 1))
        _, secret = keys.create(conn, pepper, SystemRng(), name="b", now=1, project_id="proj_b")
    client = service.client.with_options(api_key=secret)
    file = client.files.create(file=ROW * 12, purpose="fine-tune")
    own = client.fine_tuning.jobs.create(model=BASE, training_file=file.id).id

    async def test() -> None:
        async with opened(service, authorization=f"Bearer {secret}") as stream:
            assert (await stream.next_job())["id"] == own
            happen(service, theirs, 1)
            happen(service, own, 1)
            assert (await stream.next_event())["fine_tuning_job_id"] == own
        found = news.missed(service.db, "proj_b", None, 0, 1 << 60)
        assert found is not None and own in found[1].decode() and theirs not in found[1].decode()

    run(test)


def test_the_places_of_those_that_wait_move_with_the_queue(service: Service) -> None:
    first, second = make_job(service), make_job(service)

    async def test() -> None:
        async with opened(service) as stream:
            ahead = [(await stream.next_job())["num_ahead"] for _ in "ab"]
            assert ahead == [0, 1]
            commands.cancel_job(service.db, CLOCK, OWNER, first)
            states = {job["id"]: job for job in [await stream.next_job(), await stream.next_job()]}
            assert states[first]["job"]["status"] == "cancelled"
            assert states[first]["num_ahead"] is None
            assert states[second]["num_ahead"] == 0

    run(test)


class Clock:
    def now(self) -> float:
        return 1.0


CLOCK = Clock()


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("job=ftjob-none", 404, "fine_tune_id"),
        ("after=ftevent-none", 400, "after"),
    ],
)
def test_what_cannot_be_followed(query: str, status: int, param: str, service: Service) -> None:
    answer = service.http.get(f"{PATH}?{query}")
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


def test_no_key(service: Service) -> None:
    assert service.anonymous().get(PATH).status_code == 401


def test_all_figures_of_a_job_in_columns(service: Service) -> None:
    job_id = make_job(service)
    happen(service, job_id, 1, 2)
    with service.db.write() as conn:
        data = {"step": 3, "total_steps": 100, "train_loss": 0.5, "valid_loss": 0.75}
        new = NewEvent("step:3", "Step 3", 9, type="metrics", data=data)
        events.append(conn, SystemRng(), job_id, [new])
    found = service.http.get(f"/v1/tunesmith/jobs/{job_id}/metrics").json()
    assert found["steps"] == [1, 2, 3]
    assert found["figures"] == {"train_loss": [1, 1, 0.5], "valid_loss": [None, None, 0.75]}
    assert found["created_at"][2] >= 9
    assert service.http.get("/v1/tunesmith/jobs/ftjob-none/metrics").status_code == 404


def test_a_job_with_how_far_it_is(service: Service) -> None:
    job_id = make_job(service)
    happen(service, job_id, 4)
    found = service.http.get(f"/v1/tunesmith/jobs/{job_id}").json()
    assert (found["step"], found["total_steps"], found["base"]) == (4, 100, BASE)
    assert found["job"]["id"] == found["id"] == job_id
    assert service.http.get("/v1/tunesmith/jobs/ftjob-none").status_code == 404
