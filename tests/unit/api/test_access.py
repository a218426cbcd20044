"""Every route: without a key, with each role, and with the key of another project."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from tests.service import BASE, ROW, Service
from tunesmith.access import ROLE_SCOPES, Role, Scope
from tunesmith.api.app import ROUTERS
from tunesmith.api.gate import mask
from tunesmith.api.routes import PUBLIC, ROUTES, route_of
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.organization import Organization
from tunesmith.store.repo import checkpoints, keys, models, webhook_endpoints
from tunesmith.store.repo.checkpoints import CheckpointRow
from tunesmith.store.repo.models import ModelRow
from tunesmith.store.repo.webhook_endpoints import EndpointRow

SERVED = {
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods
}
UNKNOWN = [("POST", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/v1/nothing")]
TUNED = "ft:gpt-4o-mini:personal::AbCdEfGh"
ORGANIZATION = {Scope.ORGANIZATION_READ, Scope.ORGANIZATION_WRITE}


def organization(service: Service) -> Organization:
    pepper = keys.load_pepper(service.settings.data_dir)
    return Organization(service.db, SystemClock(), SystemRng(), pepper)


def with_key(service: Service, secret: str) -> TestClient:
    headers = {"authorization": f"Bearer {secret}"}
    return TestClient(service.app, headers=headers, raise_server_exceptions=False)


def filled(path: str) -> str:
    return re.sub(r"\{.*?\}", "x", path)


def test_the_table_names_the_routes_that_there_are_and_no_others() -> None:
    assert set(ROUTES) == SERVED


def test_every_path_is_closed_without_a_key_unless_it_is_meant_to_be_open(
    service: Service,
) -> None:
    anonymous = service.anonymous()
    for method, path in [*sorted(SERVED), *UNKNOWN]:
        answer = anonymous.request(method, filled(path))
        if path in PUBLIC:
            assert answer.status_code in (200, 503), path
        else:
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer" in answer.json()["error"]["message"]


@pytest.mark.parametrize("role", ["owner", "member", "reader", "admin"])
def test_every_route_asks_for_its_scope(service: Service, role: Role) -> None:
    org = organization(service)
    if role == "admin":
        may = frozenset({Scope.METRICS_READ, *ORGANIZATION})
        http = with_key(service, org.create_admin_key("x", None)[1])
    else:
        may = ROLE_SCOPES[role]
        http = with_key(service, org.create_key(org.create_project("A").id, "x", role)[1])
    for method, path in sorted(SERVED):
        needed = ROUTES[method, path]
        if needed is None:
            continue
        if needed in may:
            # Whatever comes of it, the gate has let it pass.
            assert ROUTES[method, route_of(method, filled(path)) or ""] in may, path
            continue
        answer = http.request(method, filled(path), json={})
        assert answer.status_code == 403, path
        error = answer.json()["error"]
        assert (error["code"], str(needed) in error["message"]) == ("missing_scope", True)


def test_roles_grow_and_only_owners_delete_models() -> None:
    reader, member, owner = (ROLE_SCOPES[role] for role in ("reader", "member", "owner"))
    assert reader < member < owner
    assert not any(str(scope).endswith(".write") for scope in reader)
    assert Scope.MODELS_WRITE in owner - member
    assert not owner & ORGANIZATION


@pytest.fixture
def things(service: Service) -> dict[str, str]:
    """One of everything in the default project."""
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune").id
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file).id
    event = service.client.fine_tuning.jobs.list_events(job).data[0].id
    with service.db.write() as conn:
        models.insert(
            conn,
            ModelRow(TUNED, "proj_default", "tuned", BASE, BASE, "0" * 64, job, 5, "personal"),
        )
        checkpoints.insert(conn, CheckpointRow("ftckpt_1", job, 3, TUNED, {}, 5))
        hook = EndpointRow("whe_1", "proj_default", "x", "https://example.com", [], 5, 5)
        webhook_endpoints.insert(conn, hook)
        [key] = keys.list_all(conn)
    return {
        "file_id": file,
        "job_id": job,
        "name:path": TUNED,
        "event": event,
        "checkpoint": "ftckpt_1",
        "key_id": key.id,
        "endpoint_id": "whe_1",
        "project_id": "proj_default",
        "row": "1",
    }


def bodies(things: dict[str, str]) -> dict[str, Any]:
    """Bodies that name another project's things."""
    message = [{"role": "user", "content": "a"}]
    return {
        "/v1/fine_tuning/jobs": {"model": BASE, "training_file": things["file_id"]},
        "/v1/chat/completions": {"model": TUNED, "messages": message},
        "/v1/completions": {"model": TUNED, "prompt": "a"},
        "/v1/embeddings": {"model": TUNED, "input": "a"},
        "/tokenize": {"model": TUNED, "prompt": "a"},
        "/detokenize": {"model": TUNED, "tokens": [1]},
        "/v1/tunesmith/data/report": {"file": things["file_id"]},
        "/v1/tunesmith/data/stats": {"file": things["file_id"], "base": BASE},
        "/v1/tunesmith/data/index": {"file": things["file_id"]},
        "/v1/tunesmith/data/rows": {"file": things["file_id"], "offsets": [0]},
        "/v1/tunesmith/data/tokens": {"file": things["file_id"], "base": BASE, "offset": 0},
        "/v1/tunesmith/data/fix": {"file": things["file_id"]},
        "/v1/tunesmith/data/split": {"file": things["file_id"]},
        "/v1/tunesmith/jobs/estimate": {"model": BASE, "training_file": things["file_id"]},
        "/v1/webhook_endpoints/{endpoint_id}/test": {"event_type": "fine_tuning.job.succeeded"},
    }


def queries(things: dict[str, str]) -> dict[str, Any]:
    """Queries that name another project's things."""
    return {
        "/tokenizer_info": {"model": TUNED},
        "/v1/tunesmith/events": {"job": things["job_id"]},
    }


def test_what_belongs_to_others_is_not_there(service: Service, things: dict[str, str]) -> None:
    org = organization(service)
    other = with_key(service, org.create_key(org.create_project("B").id, "x", "owner")[1])
    asked = 0
    for (method, path), needed in sorted(ROUTES.items(), key=str):
        query = queries(things).get(path)
        named = "{" in path or path in bodies(things) or query
        if needed in ORGANIZATION or not named:
            continue
        place = re.sub(r"\{(.*?)\}", lambda found: things.get(found[1], "x"), path)
        body = bodies(things).get(path, {})
        answer = other.request(method, place, json=body if method == "POST" else None, params=query)
        if path == "/v1/fine_tuning/jobs" and method == "GET":
            assert answer.json()["data"] == []
            continue
        creates = path in ("/v1/fine_tuning/jobs", "/v1/tunesmith/jobs/estimate")
        expected = 400 if creates else 404
        assert answer.status_code == expected, f"{method} {path}: {answer.text}"
        asked += 1
    assert asked >= 20
    for path in ("/v1/files", "/v1/models"):
        shown = json.dumps(other.get(path).json())
        assert things["file_id"] not in shown and TUNED not in shown
    # It is all still there for its own project.
    assert service.client.models.retrieve(TUNED).id == TUNED
    assert service.client.files.retrieve(things["file_id"]).id == things["file_id"]
    assert service.client.fine_tuning.jobs.retrieve(things["job_id"]).status != "cancelled"


def test_lists_do_not_go_on_from_what_belongs_to_others(
    service: Service, things: dict[str, str]
) -> None:
    org = organization(service)
    other = with_key(service, org.create_key(org.create_project("B").id, "x", "owner")[1])
    file = other.post(
        "/v1/files", files={"file": ("a", ROW * 12)}, data={"purpose": "fine-tune"}
    ).json()["id"]
    body = {"model": BASE, "training_file": file}
    job = other.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    for path, after in (
        ("/v1/files", things["file_id"]),
        ("/v1/fine_tuning/jobs", things["job_id"]),
        (f"/v1/fine_tuning/jobs/{job}/events", things["event"]),
        (f"/v1/fine_tuning/jobs/{job}/checkpoints", things["checkpoint"]),
        ("/v1/tunesmith/keys", things["key_id"]),
    ):
        answer = other.get(path, params={"after": after})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after"), path


def test_idempotency_keys_of_projects_do_not_meet(service: Service) -> None:
    org = organization(service)
    other = with_key(service, org.create_key(org.create_project("B").id, "x", "owner")[1])
    made = []
    for http in (service.http, other):
        upload = {"file": ("a", ROW * 12)}
        file = http.post("/v1/files", files=upload, data={"purpose": "fine-tune"}).json()["id"]
        headers = {"idempotency-key": "once"}
        body = {"model": BASE, "training_file": file}
        answers = [http.post("/v1/fine_tuning/jobs", json=body, headers=headers) for _ in "12"]
        made.append({answer.json()["id"] for answer in answers})
    assert [len(ids) for ids in made] == [1, 1]
    assert made[0] != made[1]


def test_a_member_may_not_delete_a_model_and_an_owner_may(
    service: Service, things: dict[str, str]
) -> None:
    org = organization(service)
    member = with_key(service, org.create_key("proj_default", "x", "member")[1])
    answer = member.delete(f"/v1/models/{TUNED}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
    owner = with_key(service, org.create_key("proj_default", "x", "owner")[1])
    assert owner.delete(f"/v1/models/{TUNED}").json()["deleted"]


def test_the_header_for_projects_must_name_the_key_s_own(service: Service) -> None:
    right = service.http.get("/v1/models", headers={"openai-project": "proj_default"})
    assert right.status_code == 200
    wrong = service.http.get("/v1/models", headers={"openai-project": "proj_other"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "mismatched_project")


def test_a_key_that_has_run_out_opens_nothing(service: Service) -> None:
    org = organization(service)
    _, secret = org.create_key("proj_default", "x", "owner", expires_in_s=0)
    answer = with_key(service, secret).get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert mask(secret) in answer.text
    assert secret not in answer.text


def test_only_keys_of_the_default_project_and_the_organisation_see_the_whole_server(
    service: Service,
) -> None:
    org = organization(service)
    project = org.create_project("B").id
    reader = with_key(service, org.create_key("proj_default", "x", "reader")[1])
    stranger = with_key(service, org.create_key(project, "x", "owner")[1])
    assert reader.get("/metrics").status_code == 200
    assert stranger.get("/metrics").status_code == 403
    assert reader.get("/v1/organization/projects").status_code == 403
