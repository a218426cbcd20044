"""Webhook endpoints through the official client, and what we add: deliveries, notifications."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.receiver import Receiver
from tests.service import BASE, ROW, Service, make_service
from tunesmith.ids import SystemRng
from tunesmith.store.repo import keys, notices, projects
from tunesmith.store.repo.projects import ProjectRow
from tunesmith.store.seal import unseal

SUCCEEDED: Any = "fine_tuning.job.succeeded"
FAILED: Any = "fine_tuning.job.failed"
CANCELLED: Any = "fine_tuning.job.cancelled"
URL = "https://example.com/hook"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(
        tmp_path / "data", outbound_allow=("127.0.0.1",), smtp_url="smtp://localhost:1"
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def test_from_create_to_delete(service: Service) -> None:
    webhooks = service.client.webhooks
    made = webhooks.create(name="ci", url=URL, event_types=[SUCCEEDED, FAILED])
    assert made.signing_secret.startswith("whsec_")
    assert made.object == "webhook_endpoint"
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"
    got = webhooks.retrieve(made.id)
    assert got.model_dump() == made.model_dump(exclude={"signing_secret"})
    assert "signing_secret" not in (got.model_extra or {})
    changed = webhooks.update(made.id, name="new", event_types=[CANCELLED])
    assert (changed.name, changed.url, changed.event_types) == ("new", URL, [CANCELLED])
    others = [webhooks.create(name=f"{n}", url=URL, event_types=[FAILED]).id for n in range(4)]
    assert [row.id for row in webhooks.list(limit=2)] == [*reversed(others), made.id]
    assert webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        webhooks.retrieve(made.id)


def test_the_types_of_events(service: Service) -> None:
    assert service.client.webhooks.event_types.list().data == [SUCCEEDED, FAILED, CANCELLED]


def test_an_unchanged_update_changes_nothing(service: Service) -> None:
    made = service.client.webhooks.create(name="ci", url=URL, event_types=[FAILED])
    again = service.client.webhooks.update(made.id, name="ci")
    assert again.updated_at == made.updated_at


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"url": "http://8.8.8.8/"}, "url"),
    ({"url": "https://10.0.0.1/"}, "url"),
    ({"url": "https://169.254.169.254/latest"}, "url"),
    ({"url": "nonsense"}, "url"),
    ({"event_types": []}, "event_types"),
    ({"event_types": ["response.completed"]}, "event_types"),
    ({"event_types": ["*"]}, "event_types"),
    ({"name": ""}, "name"),
    ({"name": "x" * 300}, "name"),
    ({"name": None}, "name"),
]


def test_what_is_wrong_is_named(service: Service) -> None:
    for change, param in WRONG:
        body = {"name": "ci", "url": URL, "event_types": [FAILED], **change}
        answer = service.http.post("/v1/webhook_endpoints", json=body)
        assert answer.status_code == 400, change
        assert answer.json()["error"]["param"] == param


def test_a_test_event_is_accepted_by_the_client(service: Service, receiver: Receiver) -> None:
    client = service.client
    made = client.webhooks.create(name="ci", url=receiver.url, event_types=[FAILED])
    receiver.status = 418
    result = client.webhooks.test(made.id, event_type=SUCCEEDED)
    assert (result.status_code, result.success, result.event_type) == (418, True, SUCCEEDED)
    [(headers, body)] = receiver.requests
    event = client.webhooks.unwrap(body, headers, secret=made.signing_secret)
    assert event.type == SUCCEEDED


def test_a_test_that_reaches_nobody_says_why(service: Service, receiver: Receiver) -> None:
    made = service.client.webhooks.create(
        name="ci", url="http://127.0.0.1:9/", event_types=[FAILED]
    )
    with pytest.raises(openai.BadRequestError, match="did not reach"):
        service.client.webhooks.test(made.id, event_type=FAILED)


def test_rotation_with_and_without_overlap(service: Service, receiver: Receiver) -> None:
    webhooks = service.client.webhooks
    made = webhooks.create(name="ci", url=receiver.url, event_types=[FAILED])
    kept = webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert kept.signing_secret != made.signing_secret
    webhooks.test(made.id, event_type=FAILED)
    headers, body = receiver.requests[-1]
    for secret in (made.signing_secret, kept.signing_secret):
        webhooks.unwrap(body, headers, secret=secret)
    last = webhooks.rotate_secret(made.id)
    webhooks.test(made.id, event_type=FAILED)
    headers, body = receiver.requests[-1]
    webhooks.unwrap(body, headers, secret=last.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        webhooks.unwrap(body, headers, secret=kept.signing_secret)


def cancelled_job(service: Service) -> str:
    client = service.client
    file_id = client.files.create(file=ROW * 12, purpose="fine-tune").id
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file_id)
    return client.fine_tuning.jobs.cancel(job.id).id


def test_the_log_of_deliveries(service: Service) -> None:
    made = service.client.webhooks.create(name="ci", url=URL, event_types=[CANCELLED])
    job_id = cancelled_job(service)
    path = "/v1/tunesmith/webhook_deliveries"
    [row] = service.http.get(path, params={"job_id": job_id}).json()["data"]
    assert row["target"] == made.id
    assert (row["state"], row["channel"], row["attempts"]) == ("waiting", "webhook", [])
    assert row["event_type"] == CANCELLED
    for params, number in (({"state": "dead"}, 0), ({"channel": "email"}, 0), ({}, 1)):
        assert len(service.http.get(path, params=params).json()["data"]) == number
    assert service.http.get(path, params={"state": "lost"}).status_code == 400
    again = service.http.post(f"{path}/{row['id']}/redeliver")
    assert again.json()["event_id"] == row["event_id"]
    assert service.http.post(f"{path}/dlv_none/redeliver").status_code == 404


def test_whom_a_project_wants_told(service: Service) -> None:
    path = "/v1/tunesmith/notifications"
    assert service.http.get(path).json()["emails"] == []
    body = {"emails": ["a@example.com", "a@example.com"], "wandb_api_key": "w" * 36 + "1234"}
    told = service.http.post(path, json=body).json()
    assert told["emails"] == ["a@example.com"]
    assert told["wandb_api_key_hint"] == "...1234"
    cancelled_job(service)
    [row] = service.http.get("/v1/tunesmith/webhook_deliveries").json()["data"]
    assert (row["channel"], row["target"]) == ("email", "a@example.com")
    # What is left out stays; an empty text takes away.
    assert service.http.post(path, json={"emails": []}).json()["wandb_api_key_hint"] == "...1234"
    assert service.http.post(path, json={"wandb_api_key": ""}).json()["wandb_api_key_hint"] is None
    for wrong in ("nobody", "a@b.c\nBcc: d@e.f"):
        answer = service.http.post(path, json={"emails": [wrong]})
        assert answer.json()["error"]["param"] == "emails"


def test_no_secret_lies_in_the_database(service: Service) -> None:
    made = service.client.webhooks.create(name="ci", url=URL, event_types=[CANCELLED])
    service.http.post("/v1/tunesmith/notifications", json={"wandb_api_key": "canary-of-wandb"})
    dump = "\n".join(sqlite3.connect(service.settings.database_path).iterdump())
    assert made.signing_secret not in dump
    assert "canary-of-wandb" not in dump
    with service.db.read() as conn:
        sealed = notices.get(conn, "proj_default").wandb_key
    assert sealed is not None
    pepper = keys.load_pepper(service.settings.data_dir)
    assert unseal(pepper, "the Weights & Biases key of proj_default", sealed) == "canary-of-wandb"


def test_metrics_tell_of_the_whole_service_and_open_with_their_own_token(tmp_path: Path) -> None:
    service = make_service(tmp_path / "data", metrics_token="only-for-metrics")
    service.client.webhooks.create(name="ci", url=URL, event_types=[CANCELLED])
    cancelled_job(service)
    scraper = service.anonymous()
    scraper.headers["authorization"] = "Bearer only-for-metrics"
    text = scraper.get("/metrics").text
    for line in (
        'tunesmith_jobs{status="cancelled"} 1.0',
        "tunesmith_queue_age_seconds 0.0",
        "tunesmith_trained_tokens_total 0.0",
        'tunesmith_outbox{channel="webhook",state="waiting"} 1.0',
        'tunesmith_outbox{channel="webhook",state="dead"} 0.0',
        "tunesmith_trackers_open 0.0",
    ):
        assert line in text.splitlines()
    assert scraper.get("/v1/files").status_code == 403
    assert service.anonymous().get("/metrics").status_code == 401


def test_what_is_of_another_project_is_not_there(service: Service) -> None:
    made = service.client.webhooks.create(name="ci", url=URL, event_types=[CANCELLED])
    cancelled_job(service)
    path = "/v1/tunesmith/webhook_deliveries"
    [delivery] = service.http.get(path).json()["data"]
    secret = "sk-proj-" + "o" * 43
    rng = SystemRng()
    with service.db.write() as conn:
        projects.insert(conn, ProjectRow("proj_other", "other", 1))
        keys.create(
            conn,
            keys.load_pepper(service.settings.data_dir),
            rng,
            name="other",
            now=0,
            project_id="proj_other",
            role="owner",
            secret=secret,
        )
    http = service.anonymous()
    http.headers["authorization"] = f"Bearer {secret}"
    assert http.get("/v1/webhook_endpoints").json()["data"] == []
    assert http.get(path).json()["data"] == []
    assert http.get("/v1/tunesmith/notifications").json()["emails"] == []
    body: dict[str, Any] = {"event_type": FAILED}
    for method, url, given in (
        ("GET", f"/v1/webhook_endpoints/{made.id}", None),
        ("POST", f"/v1/webhook_endpoints/{made.id}", {"name": "mine"}),
        ("DELETE", f"/v1/webhook_endpoints/{made.id}", None),
        ("POST", f"/v1/webhook_endpoints/{made.id}/rotate_secret", {}),
        ("POST", f"/v1/webhook_endpoints/{made.id}/test", body),
        ("POST", f"{path}/{delivery['id']}/redeliver", None),
    ):
        answer = http.request(method, url, json=given)
        assert answer.status_code == 404, url
    assert service.client.webhooks.retrieve(made.id).name == "ci"
