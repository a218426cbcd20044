"""What users and models write is shown as it is and never runs; other pages cannot act here."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import Watched, settled
from tests.browser.rows import IMAGE, SCRIPT, with_payloads
from tests.browser.server import Server, eventually

ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def hostile_file(server: Server) -> str:
    content = (f"{IMAGE}{SCRIPT}.jsonl", with_payloads(60))
    return server.client.files.create(file=content, purpose="fine-tune").id


@pytest.fixture(scope="module")
def hostile_job(server: Server, hostile_file: str) -> str:
    job = server.client.fine_tuning.jobs.create(
        model="tunesmith-nano",
        training_file=hostile_file,
        validation_file=hostile_file,
        suffix=IMAGE,
        metadata={"note": SCRIPT},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 8}},
        },
    )
    return job.id


def assert_harmless(page: Page) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src='x'], svg[onload]").count() == 0


def test_the_alarm_rings(server: Server, browser: Browser) -> None:
    """What the other tests look for is found where a page does take a payload for markup."""
    watched = Watched(browser.new_context(base_url=server.url))
    page = watched.page()
    page.goto("/signin")
    page.evaluate("(payload) => { document.body.innerHTML = payload; }", IMAGE)
    assert page.locator("img[src='x']").count() == 1
    eventually(lambda: page.evaluate("1") == 1 and watched.faults != [], 30)
    watched.context.close()


def test_stored_payloads_are_text(page: Page, hostile_file: str, hostile_job: str) -> None:
    page.goto(f"/jobs/{hostile_job}?tab=events")
    expect(page.get_by_role("heading", level=1)).to_have_text(IMAGE)
    expect(page.get_by_text("succeeded", exact=True)).to_be_visible(timeout=600_000)
    assert_harmless(page)
    job = f"/jobs/{hostile_job}"
    file = f"/data/{hostile_file}"
    tabs = [f"{file}?tab={tab}" for tab in ("report", "explore", "tokens", "stats", "split")]
    tabs += [f"{job}?tab={tab}" for tab in ("curves", "samples", "examples", "recipe", "files")]
    tabs += [
        f"{job}?tab=examples&row=1",
        f"{file}?tab=explore&row=1",
        f"/jobs/new?from={hostile_job}",
    ]
    for path in [*tabs, "/", "/data", "/jobs", f"/compare?jobs={hostile_job}", "/models"]:
        page.goto(path)
        settled(page)
        assert_harmless(page)
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Go to a file").fill("onerror")
    expect(page.get_by_role("option").first).to_contain_text("onerror")
    assert_harmless(page)


def test_a_model_that_answers_with_markup(page: Page) -> None:
    """Its answer is held to a schema with one value, so that it must say this."""

    def constrain(route: Route) -> None:
        body: dict[str, Any] = json.loads(route.request.post_data or "{}")
        only = {"type": "string", "enum": [IMAGE]}
        schema = {
            "type": "object",
            "properties": {"said": only},
            "required": ["said"],
            "additionalProperties": False,
        }
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "said", "schema": schema, "strict": True},
        }
        route.continue_(post_data=json.dumps(body))

    page.route("**/v1/chat/completions", constrain)
    page.goto("/playground?models=tunesmith-nano,tunesmith-nano")
    page.get_by_label("System prompt").fill(SCRIPT)
    page.get_by_label("Prompt", exact=True).fill(IMAGE)
    page.get_by_role("button", name="Run").click()
    for number in (1, 2):
        column = page.get_by_role("region", name=f"Column {number}")
        expect(column.get_by_text("total ")).to_be_visible()
        expect(column).to_contain_text(IMAGE)
    for view in ("Difference to column 1", "Probabilities", "Answers"):
        page.get_by_role("tab", name=view).click()
        assert_harmless(page)
    page.get_by_role("button", name="View code").click()
    expect(page.get_by_role("dialog")).to_contain_text("onerror")
    assert_harmless(page)


class EvilPage(BaseHTTPRequestHandler):
    """A page of the same host, and so the same site for cookies, but of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def evil_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EvilPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_pages_of_others_cannot_act(
    watched: Watched, server: Server, evil_url: str, rows_file: str, long_job: str
) -> None:
    page = watched.context.new_page()
    page.goto(evil_url)
    # The browser sends the cookie along, as the host is the same; the server must not take it.
    send = """async ([url, method]) => {
        try {
            await fetch(url, { method, mode: "no-cors", credentials: "include" });
        } catch {}
        try {
            return (await fetch(url, { method, credentials: "include" })).status;
        } catch {
            return "unreadable";
        }
    }"""
    targets = [
        (f"/v1/fine_tuning/jobs/{long_job}/cancel", "POST"),
        (f"/v1/files/{rows_file}", "DELETE"),
        ("/v1/models", "GET"),
    ]
    for path, method in targets:
        assert page.evaluate(send, [server.url + path, method]) == "unreadable"
    with page.expect_navigation() as navigation:
        page.evaluate(
            """(url) => {
                const form = document.createElement("form");
                form.method = "post";
                form.action = url;
                document.body.append(form);
                form.submit();
            }""",
            f"{server.url}/v1/fine_tuning/jobs/{long_job}/cancel",
        )
    answer = navigation.value
    assert answer is not None and answer.status == 401
    assert server.client.fine_tuning.jobs.retrieve(long_job).status not in ENDED
    assert server.client.files.retrieve(rows_file).id == rows_file


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {},
    ],
)
def test_a_cookie_alone_opens_nothing(
    server: Server, session: dict[str, Any], rows_file: str, headers: dict[str, str]
) -> None:
    [cookie] = session["cookies"]
    host, port = server.url.removeprefix("http://").split(":")
    wire = http.client.HTTPConnection(host, int(port), timeout=60)
    given = {"Cookie": f"{cookie['name']}={cookie['value']}", **headers}
    for method in ("GET", "DELETE"):
        wire.request(method, f"/v1/files/{rows_file}", headers=given)
        answer = wire.getresponse()
        assert answer.status == 401
        answer.read()
