"""The web app's files: what is served, to whom, and under which policy."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from tests.service import Service
from tunesmith.api.app import ROUTERS
from tunesmith.api.ui import POLICY, SCREENS, Ui, read_bundle

PAGE = "<!doctype html><title>Tunesmith</title>"
SCRIPT = "console.log('x')\n" * 100


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "assets" / "index-3f9a.js").write_text(SCRIPT)
    (tmp_path / "assets" / "inter-9.woff2").write_bytes(b"\x00font")
    (tmp_path / ".built").write_text("stamp")
    return tmp_path


@pytest.fixture
def http(bundle: Path) -> TestClient:
    return TestClient(Ui(PlainTextResponse("from the api"), read_bundle(bundle)))


@pytest.mark.parametrize("path", ["/", "/data/file-x", "/jobs/new", "/playground?models=a"])
def test_every_screen_gets_the_page(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.text == PAGE
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_allows_this_origin_only() -> None:
    assert "default-src 'self'" in POLICY
    assert not re.search(r"unsafe|http|data:|\*", POLICY)


def test_hashed_files_are_kept_for_ever_and_sent_compressed(http: TestClient) -> None:
    answer = http.get("/assets/index-3f9a.js")
    assert answer.text == SCRIPT
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(gzip.compress(SCRIPT.encode(), mtime=0))
    assert "immutable" in answer.headers["cache-control"]
    plain = http.get("/assets/index-3f9a.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.text == SCRIPT
    font = http.get("/assets/inter-9.woff2")
    assert "content-encoding" not in font.headers and font.content == b"\x00font"


def test_an_unchanged_page_is_not_sent_again(http: TestClient) -> None:
    tag = http.get("/").headers["etag"]
    again = http.get("/", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/healthz"),
        ("GET", "/nowhere"),
        ("POST", "/"),
        ("GET", "/assets/missing.js"),
        ("GET", "/.built"),
        ("GET", "/assets/../../etc/passwd"),
        ("GET", "/assets/%2e%2e/index.html"),
        ("GET", "//evil.example/"),
    ],
)
def test_everything_else_goes_on_to_the_api(http: TestClient, method: str, path: str) -> None:
    answer = http.request(method, f"http://testserver{path}")
    assert answer.text == "from the api" or answer.text == PAGE
    assert "stamp" not in answer.text
    if path not in ("/assets/../../etc/passwd", "/assets/%2e%2e/index.html", "//evil.example/"):
        assert answer.text == "from the api"


def test_no_screen_hides_a_route_of_the_api() -> None:
    first = {route.path.split("/")[1] for router in ROUTERS for route in router.routes}
    assert not first & SCREENS


def test_screens_are_those_of_the_router() -> None:
    source = (Path(__file__).parents[3] / "web" / "src" / "router.tsx").read_text()
    paths = re.findall(r'path: "/([a-z]*)', source)
    assert set(paths) == SCREENS


def test_without_its_files_the_first_page_says_how_to_get_them(tmp_path: Path) -> None:
    http = TestClient(Ui(PlainTextResponse("from the api"), read_bundle(tmp_path)))
    answer = http.get("/")
    assert answer.status_code == 200
    assert "make ui" in answer.text and "/v1" in answer.text
    assert answer.headers["content-security-policy"] == POLICY
    assert http.get("/v1/models").text == "from the api"


def test_the_page_needs_no_key_and_holds_nothing_of_the_server(service: Service) -> None:
    answer = service.anonymous().get("/")
    assert answer.status_code == 200
    assert answer.headers["x-request-id"].startswith("req_")
    assert "sk-" not in answer.text
