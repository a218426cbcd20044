"""Every way to fail, through one assertion on the shape: `tests/service.py` checks the rest."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.service import Service
from tunesmith.api import failures
from tunesmith.api.failures import path_of
from tunesmith.api.gate import Frame
from tunesmith.errors import AdapterError, EngineUnavailable
from tunesmith.ids import SystemRng
from tunesmith.ops.telemetry import Metrics
from tunesmith.ops.tracing import Tracing
from tunesmith.serve.protocol import InvalidRequest

JOBS = "/v1/fine_tuning/jobs"
CHAT = "/v1/chat/completions"


def error_of(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("POST", "/v1/x"),
        ("PUT", "/v1/files"),
        ("DELETE", "/v1/models"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/files/"),
        ("GET", "/v1/files//home/x"),
        ("GET", "/v1/files/%2Fhome%2Fx"),
        ("GET", "/v1/files/..%2f..%2fetc%2fpasswd"),
        ("PATCH", JOBS),
    ],
)
def test_unknown_urls_and_methods_are_invalid_urls(
    service: Service, method: str, path: str
) -> None:
    error = error_of(service.http.request(method, path), 404)
    assert error["message"].startswith((f"Invalid URL ({method} ", "The model ``"))


def test_the_old_fine_tunes_api_points_to_the_new_one(service: Service) -> None:
    error = error_of(service.http.post("/v1/fine-tunes", json={}), 404)
    assert "/v1/fine_tuning/jobs" in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": NaN}',
        b'{"seed": 1e999}',
        b'{"seed": -Infinity}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"model": "\\ud800"}',
        b'{"model": "\xff"}',
        b"[" * 50_000,
        b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
        b"\xef\xbb\xbf{}",
    ],
)
@pytest.mark.parametrize("path", [JOBS, CHAT])
def test_what_is_no_json_is_refused(service: Service, path: str, body: bytes) -> None:
    answer = service.http.post(path, content=body, headers={"content-type": "application/json"})
    assert error_of(answer, 400)["code"] == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null"])
def test_a_body_that_is_no_object_is_refused(service: Service, body: bytes) -> None:
    answer = service.http.post(CHAT, content=body, headers={"content-type": "application/json"})
    error_of(answer, 400)


def test_a_form_where_json_belongs_is_refused(service: Service) -> None:
    error = error_of(service.http.post(JOBS, data={"model": "x"}), 400)
    assert error["code"] == "invalid_content_type"


def test_json_without_a_content_type_is_taken(service: Service) -> None:
    error = error_of(service.http.post(JOBS, content=b'{"model": "x"}'), 400)
    assert error["param"] == "training_file"


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_above_the_limit_is_refused_with_the_limit(service: Service, declared: bool) -> None:
    body = b'{"model": "' + b"x" * 200_000 + b'"}'
    content = body if declared else iter([body[:100_000], body[100_000:]])
    answer = service.http.post(JOBS, content=content)
    assert "100000 bytes" in error_of(answer, 413)["message"]


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        (JOBS, {}, "training_file", "missing_required_parameter"),
        (JOBS, {"model": "m", "training_file": 3}, "training_file", "invalid_type"),
        (JOBS, {"model": "m", "training_file": "f", "seed": "1"}, "seed", "invalid_type"),
        (JOBS, {"model": "m", "training_file": "f", "seed": True}, "seed", "invalid_type"),
        (JOBS, {"model": "m", "training_file": "f", "metadata": {"a": 1}}, "metadata.a", None),
        (CHAT, {"model": "m", "messages": []}, "messages", "empty_array"),
        (CHAT, {"model": "m", "messages": [1], "temperature": 3}, "temperature", "above_max_value"),
        (CHAT, {"model": "m", "messages": [1], "top_p": -1}, "top_p", "below_min_value"),
        (CHAT, {"model": "m", "messages": [1], "n": 0}, "n", "below_min_value"),
        (CHAT, {"model": "m", "messages": [1], "stop": [1]}, "stop[0]", "invalid_type"),
        (CHAT, {"model": "m", "messages": [1], "logit_bias": {"1": 101}}, "logit_bias.1", None),
        (
            CHAT,
            {"model": "m", "messages": [1], "stream_options": {"include_usage": 3}},
            "stream_options.include_usage",
            "invalid_type",
        ),
    ],
)
def test_a_wrong_parameter_is_named(
    service: Service, path: str, body: dict[str, Any], param: str, code: str | None
) -> None:
    error = error_of(service.http.post(path, json=body), 400)
    assert error["param"] == param
    assert code is None or error["code"] == code
    assert param in error["message"]


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=99999999999999999999"])
@pytest.mark.parametrize("path", ["/v1/files", JOBS])
def test_a_wrong_limit_is_refused(service: Service, path: str, query: str) -> None:
    assert error_of(service.http.get(f"{path}?{query}"), 400)["param"] == "limit"


@pytest.mark.parametrize("path", ["/v1/files", JOBS])
def test_an_unknown_cursor_is_refused(service: Service, path: str) -> None:
    assert error_of(service.http.get(f"{path}?after=nothing"), 400)["param"] == "after"


def crashing(error: Exception) -> TestClient:
    app = FastAPI()
    failures.install(app)

    @app.get("/crash")
    def crash() -> None:
        raise error

    return TestClient(Frame(app, SystemRng(), Metrics(), "org", Tracing()))


def test_an_unexpected_error_tells_the_log_and_not_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "tunesmith.api"):
        answer = crashing(ValueError("a secret of ours")).get("/crash")
    error = error_of(answer, 500)
    assert error["type"] == "server_error"
    assert "secret" not in answer.text
    [record] = [each for each in caplog.records if each.exc_info]
    assert record.__dict__["fields"]["request_id"] == answer.headers["x-request-id"]
    assert "a secret of ours" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineUnavailable("The engine is not running."), 503),
        (AdapterError("The adapter does not fit."), 500),
        (InvalidRequest("No such thing."), 400),
    ],
)
def test_errors_from_below_keep_their_words(error: Exception, status: int) -> None:
    answer = crashing(error).get("/crash")
    assert error_of(answer, status)["message"] == str(error)
    assert (answer.headers.get("retry-after") == "1") == (status == 503)


def test_paths_are_written_as_users_do() -> None:
    body = {"messages": [{"content": [{"type": "text"}]}], "stop": 3}
    assert path_of(("messages", 0, "content", "list[x]", 0, "type"), body) == (
        "messages[0].content[0].type"
    )
    assert path_of(("stop", "str"), body) == "stop"
    assert path_of(("messages", 0, "role"), body, missing=True) == "messages[0].role"
    assert path_of((), body) is None
