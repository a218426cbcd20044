from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute

from tests.service import KEY, Service
from tunesmith.api.app import ROUTERS
from tunesmith.api.gate import PUBLIC, mask
from tunesmith.ids import SystemClock
from tunesmith.store.repo import keys

ROUTES = [
    (method, re.sub(r"\{.*?\}", "x", route.path))
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]
UNKNOWN = [("POST", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/v1/nothing")]


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *UNKNOWN])
def test_every_path_is_closed_without_a_key_unless_it_is_meant_to_be_open(
    service: Service, method: str, path: str
) -> None:
    answer = service.anonymous().request(method, path)
    if path in PUBLIC:
        assert answer.status_code in (200, 503)
    else:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "header",
    ["Bearer sk-wrong-0123456789abcdwxyz", "bearer sk-wrong-0123456789abcdwxyz", "Bearer \xff\xfe"],
)
def test_a_wrong_key_is_named_but_not_shown(service: Service, header: str) -> None:
    answer = service.anonymous().get(
        "/v1/models", headers={"authorization": header.encode("latin-1")}
    )
    error = answer.json()["error"]
    assert answer.status_code == 401
    assert error["code"] == "invalid_api_key"
    assert "0123456789" not in answer.text


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Basic {KEY}", KEY])
def test_anything_but_a_bearer_key_is_no_key(service: Service, header: str) -> None:
    answer = service.anonymous().get("/v1/models", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] is None


def test_a_revoked_key_opens_nothing_from_the_next_request_on(service: Service) -> None:
    assert service.http.get("/v1/models").status_code == 200
    with service.db.write() as conn:
        [row] = keys.list_all(conn)
        keys.revoke(conn, row.id, int(SystemClock().now()))
    assert service.http.get("/v1/models").status_code == 401


def test_the_use_of_a_key_is_noted(service: Service) -> None:
    service.http.get("/v1/models")
    with service.db.read() as conn:
        [row] = keys.list_all(conn)
    assert row.last_used_at is not None


def test_request_ids_are_fresh_and_not_taken_from_outside(service: Service) -> None:
    given = {"x-request-id": "req_mine"}
    ids = {service.http.get("/v1/models", headers=given).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert "req_mine" not in ids


def test_every_answer_carries_the_service_headers(service: Service) -> None:
    for answer in (service.http.get("/v1/models"), service.http.get("/nowhere")):
        assert answer.headers["openai-version"] == "2020-10-01"
        assert answer.headers["openai-organization"] == "personal"
        assert int(answer.headers["openai-processing-ms"]) >= 1


def test_a_preflight_gets_an_answer_and_no_permission(service: Service) -> None:
    answer = service.anonymous().options(
        "/v1/chat/completions",
        headers={"origin": "https://example.com", "access-control-request-method": "POST"},
    )
    assert answer.status_code == 204
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_masking_shows_ends_of_long_keys_only() -> None:
    assert mask("sk-abcdefghijklmnop") == "sk-...mnop"
    assert mask("sk-short") == "***"


def test_metrics_need_a_key_and_hold_none(service: Service) -> None:
    service.http.get("/v1/models")
    text = service.http.get("/metrics").text
    assert 'route="/v1/models",status="200"' in text
    assert KEY not in text
