"""Word of a job's end: in its own transaction, once, retried, given up, sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.receiver import Receiver
from tests.unit.jobs.world import World, end, steps, validate
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.config import Settings
from tunesmith.errors import BadRequest
from tunesmith.ids import SystemRng
from tunesmith.jobs import signing
from tunesmith.jobs.courier import LEASE_S, Courier
from tunesmith.jobs.outbox import EVENT_TYPES, LONGEST_PAUSE_S, check_job_emails, pause_s
from tunesmith.store.repo import keys, notices, outbox, webhook_endpoints
from tunesmith.store.repo.notices import NoticeRow
from tunesmith.store.repo.outbox import AttemptRow, DeliveryRow
from tunesmith.store.repo.webhook_endpoints import EndpointRow


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data", outbound_allow=("127.0.0.1",), delivery_give_up_s=1000.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def subscribe(world: World, url: str, *event_types: str, id: str = "whe_1") -> EndpointRow:
    row = EndpointRow(
        id=id,
        project_id=DEFAULT_PROJECT,
        name="ci",
        url=url,
        event_types=list(event_types or EVENT_TYPES),
        created_at=1,
        updated_at=1,
    )
    with world.db.write() as conn:
        webhook_endpoints.insert(conn, row)
    return row


def run_job(world: World, status: str = "succeeded", **fields: Any) -> str:
    """A job that a worker takes from its files to its end."""
    job = world.create(**fields)
    supervisor = world.supervisor()
    supervisor.tick()
    validate(world.only_process(), total_steps=2)
    supervisor.tick()
    process = world.only_process()
    steps(process, 2, total_steps=2)
    end(process, status, total_steps=2)  # type: ignore[arg-type]
    supervisor.tick()
    assert world.job(job.id).status == status
    return job.id


def deliveries(world: World) -> list[DeliveryRow]:
    with world.db.read() as conn:
        return outbox.page(conn, DEFAULT_PROJECT, limit=100).rows


def attempts(world: World, delivery: DeliveryRow) -> list[AttemptRow]:
    with world.db.read() as conn:
        return outbox.attempts_of(conn, [delivery.id])[delivery.id]


def deliver(courier: Courier) -> None:
    """One round, to its end."""

    async def once() -> None:
        courier.tick()
        await asyncio.gather(*courier.tasks)

    asyncio.run(once())


def test_every_end_is_told_and_nothing_else(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver.url)
    succeeded = run_job(world)
    cancelled = run_job(world, "cancelled")
    job = world.create()
    supervisor = world.supervisor()
    supervisor.tick()
    validate(world.only_process())
    supervisor.tick()
    assert {row.job_id for row in deliveries(world)} == {succeeded, cancelled}
    deliver(Courier(world.context))
    assert sorted(event["type"] for event in receiver.events) == [
        "fine_tuning.job.cancelled",
        "fine_tuning.job.succeeded",
    ]
    assert {event["data"]["id"] for event in receiver.events} == {succeeded, cancelled}
    assert job.id not in str(receiver.events)


def test_a_job_that_is_cancelled_by_its_user_alone_is_told(world: World) -> None:
    subscribe(world, "https://example.com/")
    job = world.create()
    world.cancel(job.id)
    assert [row.event_type for row in deliveries(world)] == ["fine_tuning.job.cancelled"]


def test_only_what_was_subscribed_to_by_the_own_project(world: World) -> None:
    subscribe(world, "https://example.com/", "fine_tuning.job.failed")
    subscribe(world, "https://example.com/", "fine_tuning.job.succeeded", id="whe_2")
    run_job(world)
    assert [row.target for row in deliveries(world)] == ["whe_2"]


def test_the_official_client_unwraps_what_comes(world: World, receiver: Receiver) -> None:
    endpoint = subscribe(world, receiver.url)
    job_id = run_job(world)
    deliver(Courier(world.context))
    pepper = keys.load_pepper(world.settings.data_dir)
    secret = signing.secret_of(pepper, endpoint.id, 0)
    [(headers, body)] = receiver.requests
    # The world's clock stands in 2027, so the age is not checked here.
    OpenAI(api_key="none").webhooks.verify_signature(body, headers, secret=secret, tolerance=10**9)
    assert receiver.events[0]["data"] == {"id": job_id}
    assert headers["webhook-id"] == receiver.events[0]["id"]
    [row] = deliveries(world)
    assert (row.state, row.finished_at) == ("delivered", world.context.now())
    [attempt] = attempts(world, row)
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 200, None)


def test_a_receiver_that_is_down_is_tried_again_with_the_same_id(
    world: World, receiver: Receiver
) -> None:
    subscribe(world, receiver.url)
    run_job(world)
    courier = Courier(world.context)
    receiver.status = 500
    deliver(courier)
    [row] = deliveries(world)
    assert row.state == "waiting"
    assert 4.5 <= row.due_at - world.clock.now() <= 5.5
    deliver(courier)
    assert len(receiver.requests) == 1
    world.clock.value = row.due_at
    receiver.status = 204
    deliver(courier)
    [row] = deliveries(world)
    assert [one.status_code for one in attempts(world, row)] == [500, 204]
    assert row.state == "delivered"
    first, second = receiver.requests
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert first[0]["webhook-timestamp"] < second[0]["webhook-timestamp"]


def test_what_nobody_takes_is_dead_in_time_and_can_be_sent_again(
    world: World, receiver: Receiver
) -> None:
    subscribe(world, receiver.url)
    run_job(world)
    courier = Courier(world.context)
    receiver.status = 503
    started = world.clock.now()
    while (row := deliveries(world)[0]).state == "waiting":
        world.clock.value = row.due_at
        deliver(courier)
    assert row.state == "dead"
    assert world.clock.now() - started <= world.settings.delivery_give_up_s
    # 5 s, 15 s, 45 s, 135 s, 405 s; the next pause would end too late.
    assert row.num_attempts == 6
    world.clock.value += 10_000
    deliver(courier)
    assert len(receiver.requests) == 6
    receiver.status = 200
    with world.db.write() as conn:
        outbox.send_again(conn, row.id, world.context.now())
    deliver(courier)
    [row] = deliveries(world)
    assert (row.state, row.num_attempts) == ("delivered", 7)


def test_two_workers_send_once(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver.url)
    for _ in range(3):
        run_job(world)
    couriers = [Courier(world.context) for _ in range(4)]

    async def race() -> None:
        for courier in couriers:
            courier.tick()
        for courier in couriers:
            await asyncio.gather(*courier.tasks)

    asyncio.run(race())
    assert len(receiver.requests) == 3
    assert {row.state for row in deliveries(world)} == {"delivered"}


def test_what_a_silent_worker_holds_is_taken_over(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver.url)
    run_job(world)
    time = world.db.lease_clock()
    with world.db.write() as conn:
        held = outbox.claim(conn, "1.1.1.x", time, world.clock.now(), lease_s=LEASE_S, limit=9)
    assert len(held) == 1
    deliver(Courier(world.context))
    assert receiver.requests == []
    world.ticking.now_s += LEASE_S + 1
    deliver(Courier(world.context))
    assert len(receiver.requests) == 1


def test_an_outcome_of_one_who_lost_it_is_not_noted(world: World) -> None:
    subscribe(world, "https://example.com/")
    run_job(world)
    [row] = deliveries(world)
    attempt = AttemptRow(row.id, 1, 1, 1, 200, None)
    with world.db.write() as conn:
        assert not outbox.settle(conn, "x", attempt, state="delivered", due_at=0.0, finished_at=1)
    assert deliveries(world) == [row]


def test_an_error_of_ours_is_an_attempt_too(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what cannot be sent would be tried for ever."""
    subscribe(world, receiver.url)
    run_job(world)

    def broken(*_: object) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(signing, "event_body", broken)
    deliver(Courier(world.context))
    [row] = deliveries(world)
    assert (row.state, row.num_attempts) == ("waiting", 1)
    monkeypatch.undo()
    world.clock.value = row.due_at
    deliver(Courier(world.context))
    assert deliveries(world)[0].state == "delivered"


def test_a_deleted_endpoint_gets_nothing_more(world: World, receiver: Receiver) -> None:
    endpoint = subscribe(world, receiver.url)
    run_job(world)
    with world.db.write() as conn:
        webhook_endpoints.delete(conn, endpoint.id)
    deliver(Courier(world.context))
    [row] = deliveries(world)
    assert row.state == "dead"
    assert "deleted" in (attempts(world, row)[0].error or "")
    assert receiver.requests == []


def test_an_address_of_our_own_network_is_never_called(tmp_path: Path, receiver: Receiver) -> None:
    world = World(tmp_path / "data")
    subscribe(world, receiver.url)
    run_job(world)
    deliver(Courier(world.context))
    [row] = deliveries(world)
    assert "no public address" in (attempts(world, row)[0].error or "")
    assert receiver.requests == []


def test_a_full_transaction_or_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash while word is written undoes the end of the job as well."""
    subscribe(world, "https://example.com/")
    job = world.create()

    def crash(*_: object) -> None:
        raise OSError("killed")

    monkeypatch.setattr(outbox, "insert", crash)
    with pytest.raises(OSError, match="killed"):
        world.cancel(job.id)
    monkeypatch.undo()
    assert world.job(job.id).status == "validating_files"
    assert deliveries(world) == []
    world.cancel(job.id)
    assert len(deliveries(world)) == 1


def test_e_mail_goes_to_the_project_and_to_whom_the_job_names(world: World) -> None:
    with world.db.write() as conn:
        notices.put(conn, NoticeRow(DEFAULT_PROJECT, ["team@example.com", "lead@example.com"]))
    job = world.create(metadata={"notify_email": "me@example.com, team@example.com"})
    world.cancel(job.id)
    assert sorted(row.target for row in deliveries(world)) == [
        "lead@example.com",
        "me@example.com",
        "team@example.com",
    ]


@pytest.mark.parametrize(
    "given", ["nobody", "a@b.c\nBcc: d@e.f", "a@b.c,", "<a@b.c>", ",".join(["a@b.c"] * 6)]
)
def test_what_is_no_address_is_told_at_once(given: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_job_emails(Settings(), {"notify_email": given})
    assert caught.value.param == "metadata.notify_email"


def test_other_domains_than_the_allowed_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path / "data", email_domains=("Example.com",))
    with pytest.raises(BadRequest, match="only"):
        world.create(metadata={"notify_email": "a@elsewhere.com"})
    world.create(metadata={"notify_email": "a@EXAMPLE.com"})


def test_without_a_mail_server_the_job_says_so_and_the_e_mail_waits_for_one(
    world: World,
) -> None:
    job = world.create(metadata={"notify_email": "a@b.c"})
    assert any("no mail server" in text for text in world.messages(job.id))
    world.cancel(job.id)
    deliver(Courier(world.context))
    [row] = deliveries(world)
    assert row.state == "dead"
    assert "TUNESMITH_SMTP_URL" in (attempts(world, row)[0].error or "")


def test_pauses_grow_threefold_to_the_longest() -> None:
    rng = SystemRng()
    for number, steady in ((1, 5), (2, 15), (3, 45), (40, LONGEST_PAUSE_S)):
        pauses = [pause_s(number, 5.0, rng) for _ in range(50)]
        assert all(0.9 * steady <= pause <= 1.1 * steady for pause in pauses)
        assert len(set(pauses)) > 1


def test_old_entries_are_forgotten(world: World) -> None:
    subscribe(world, "https://example.com/", id="whe_2")
    job = world.create()
    world.cancel(job.id)
    with world.db.write() as conn:
        assert outbox.prune(conn, world.context.now() + 1) == 0
        webhook_endpoints.delete(conn, "whe_2")
    deliver(Courier(world.context))
    with world.db.write() as conn:
        assert outbox.prune(conn, world.context.now() + 1) == 1
    assert deliveries(world) == []
