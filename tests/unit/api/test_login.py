"""A browser's session: what it opens, and what it never opens."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from tests.service import KEY, Service
from tunesmith.api.login import LIFETIME_S, Signer, from_own_pages, session_key
from tunesmith.ids import SystemClock
from tunesmith.store import links
from tunesmith.store.repo import keys

PATH = "/v1/tunesmith/session"
OWN = {"sec-fetch-site": "same-origin"}


def signed_in(service: Service) -> TestClient:
    http = service.anonymous()
    answer = http.post(PATH, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    return http


def test_a_key_is_traded_for_a_cookie_that_no_script_sees(service: Service) -> None:
    http = service.anonymous()
    answer = http.post(PATH, headers={"authorization": f"Bearer {KEY}"})
    body, cookie = answer.json(), answer.headers["set-cookie"]
    assert body["object"] == "tunesmith.session"
    assert (body["key_name"], KEY in answer.text) == ("test", False)
    assert body["expires_at"] > SystemClock().now() + LIFETIME_S - 60
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert KEY not in cookie
    shown = http.get(PATH, headers=OWN)
    assert shown.json()["key_id"] == body["key_id"]


def test_the_session_opens_what_its_key_opens(service: Service) -> None:
    http = signed_in(service)
    assert http.get("/v1/models", headers=OWN).status_code == 200
    assert http.get("/v1/models").status_code == 401


def test_signing_out_makes_the_browser_forget(service: Service) -> None:
    http = signed_in(service)
    assert http.delete(PATH, headers=OWN).json()["deleted"] is True
    assert http.get("/v1/models", headers=OWN).status_code == 401


def test_a_revoked_key_ends_its_sessions(service: Service) -> None:
    http = signed_in(service)
    with service.db.write() as conn:
        [row] = keys.list_all(conn)
        keys.revoke(conn, row.id, 1)
    assert http.get("/v1/models", headers=OWN).status_code == 401


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site", "origin": "http://testserver"},
        {"referer": "https://evil.example/http://testserver/"},
        {"origin": "http://testserver.evil.example"},
        {"origin": "http://testserver:81"},
    ],
)
def test_requests_that_other_pages_make_are_refused(
    service: Service, method: str, headers: dict[str, str]
) -> None:
    http = signed_in(service)
    answer = http.request(method, "/v1/files", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "headers",
    [
        OWN,
        {"origin": "http://testserver"},
        {"origin": "https://testserver"},
        {"referer": "http://testserver/data"},
        {"sec-fetch-site": "same-origin", "origin": "http://testserver"},
    ],
)
def test_requests_of_own_pages_pass(headers: dict[str, str]) -> None:
    assert from_own_pages(Headers({"host": "testserver", **headers}))


def test_a_key_beside_a_cookie_is_what_counts(service: Service) -> None:
    http = signed_in(service)
    headers = OWN | {"authorization": "Bearer sk-wrong-0123456789abcdef"}
    assert http.get("/v1/models", headers=headers).status_code == 401


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=60))
def test_no_cookie_but_a_signed_one_is_read(text: str) -> None:
    signer = Signer(b"pepper")
    assert signer.read(text, 0) is None
    value = signer.sign("key_1", 100)
    assert signer.read(value, 99) == "key_1"
    assert signer.read(value, 100) is None
    assert Signer(b"other").read(value, 99) is None
    assert signer.read(value + text, 99) == ("key_1" if text == "" else None)


def test_a_cookie_with_a_changed_part_is_not_ours() -> None:
    signer = Signer(b"pepper")
    key_id, expires_at, mac = signer.sign("key_1", 100).split(".")
    for parts in itertools.product(("key_2", key_id), ("200", expires_at), (mac[::-1], mac)):
        expected = "key_1" if parts == (key_id, expires_at, mac) else None
        assert signer.read(".".join(parts), 50) == expected


@pytest.mark.parametrize("cookie", ["", "a", "tunesmith-x=1", 'bad="', "\xff=\xfe"])
def test_strange_cookies_are_no_session(cookie: str) -> None:
    headers = Headers(raw=[(b"cookie", cookie.encode("latin-1")), (b"host", b"x")])
    assert session_key(Signer(b"pepper"), headers, 0) is None


def test_servers_on_one_host_do_not_share_a_cookie() -> None:
    assert Signer(b"one").cookie != Signer(b"other").cookie


def test_a_link_signs_in_once(service: Service) -> None:
    with service.db.read() as conn:
        [row] = keys.list_all(conn)
    service.settings.run_dir.mkdir(exist_ok=True)
    secret = links.make(service.settings.run_dir, row.id, int(SystemClock().now()))
    http = service.anonymous()
    assert http.post(PATH, headers={"authorization": f"Bearer {secret}"}).status_code == 200
    assert http.get("/v1/models", headers=OWN).status_code == 200
    again = service.anonymous().post(PATH, headers={"authorization": f"Bearer {secret}"})
    assert again.status_code == 401


def test_of_many_who_use_a_link_at_once_one_gets_in(tmp_path: Path) -> None:
    secret = links.make(tmp_path, "key_1", 0)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: links.redeem(tmp_path, secret, 1), range(64)))
    assert sorted(filter(None, found)) == ["key_1"]


def test_old_wrong_and_replaced_links_open_nothing(tmp_path: Path) -> None:
    assert links.redeem(tmp_path, "link-x", 0) is None
    first = links.make(tmp_path, "key_1", 0)
    second = links.make(tmp_path, "key_1", 0)
    assert links.redeem(tmp_path, first, 1) is None
    assert links.redeem(tmp_path, second, links.LIFETIME_S) is None
    assert links.redeem(tmp_path, second, links.LIFETIME_S - 1) == "key_1"
    assert second not in "".join(path.name for path in tmp_path.iterdir())
