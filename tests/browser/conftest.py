"""A real server, and the machine's own Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.rows import labels, lines
from tests.browser.server import Server

BUNDLE = Path(__file__).parents[2] / "tunesmith" / "ui" / "index.html"
PATIENCE_MS = 120_000
CONTEXT: dict[str, Any] = {
    "viewport": {"width": 1440, "height": 900},
    "reduced_motion": "reduce",
    "accept_downloads": True,
}


def settled(page: Page) -> None:
    """What was asked for has come. Streams never end, so the network is not waited for."""
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("[role=status][aria-label], [aria-busy=true]")).to_have_count(0)


def keep(page: Page, name: str) -> None:
    """A picture, where SHOTS names a directory for it."""
    if directory := os.environ.get("SHOTS"):
        theme = page.evaluate("document.documentElement.dataset.theme")
        page.screenshot(path=Path(directory) / f"{name}-{theme}.png")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert BUNDLE.is_file(), "the web app is not built: make ui"
    running = Server(tmp_path_factory.mktemp("browser") / "data")
    yield running
    running.end()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    assert path, "no Chromium on PATH: install it, or name it in CHROMIUM"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Without the sandbox, which a container's root has no use of.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """A browser's session, and what went wrong on its pages."""

    context: BrowserContext
    faults: list[str] = field(default_factory=list)

    def page(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("console", lambda entry: self._read(entry.type, entry.text))
        return page

    def _read(self, kind: str, text: str) -> None:
        # The policy has stopped what should not have been tried.
        if kind == "error" and "Content Security Policy" in text:
            self.faults.append(text)


@pytest.fixture(scope="session")
def session(server: Server, browser: Browser) -> dict[str, Any]:
    """Cookies of one who has signed in with the server's first key."""
    context = browser.new_context(**CONTEXT)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{server.url}/signin")
    page.get_by_label("API key").fill(server.key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{server.url}/")
    state: Any = context.storage_state()
    context.close()
    return dict(state)


@pytest.fixture
def watched(server: Server, browser: Browser, session: dict[str, Any]) -> Iterator[Watched]:
    """Signed in; no page may have met an error at the end."""
    context = browser.new_context(base_url=server.url, storage_state=session, **CONTEXT)  # type: ignore[arg-type]
    found = Watched(context)
    yield found
    context.close()
    assert found.faults == []


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page()


@pytest.fixture(scope="session")
def rows_file(server: Server) -> str:
    """The id of a file that jobs take."""
    content = ("labels.jsonl", lines(labels(120)))
    return server.client.files.create(file=content, purpose="fine-tune").id


@pytest.fixture
def long_job(server: Server, rows_file: str) -> Iterator[str]:
    """The id of a job that goes on for longer than any test looks at it."""
    client = server.client
    job = client.fine_tuning.jobs.create(
        model="tunesmith-nano",
        training_file=rows_file,
        suffix="long",
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 1}},
        },
    )
    yield job.id
    if client.fine_tuning.jobs.retrieve(job.id).status not in ("cancelled", "failed", "succeeded"):
        client.fine_tuning.jobs.cancel(job.id)
