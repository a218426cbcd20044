"""A training is watched while the page or the server starts anew, and from two tabs."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS, Watched
from tests.browser.server import Server, eventually


def step(page: Page) -> int:
    """How far the page says that the job is."""
    text = page.locator("main").inner_text()
    found = re.search(r"Step ([\d,]+) of", text)
    return int(found.group(1).replace(",", "")) if found else 0


def wait_beyond(page: Page, number: int) -> int:
    eventually(lambda: step(page) > number, PATIENCE_MS / 1000)
    return step(page)


def test_a_refresh_in_the_middle(page: Page, long_job: str) -> None:
    page.goto(f"/jobs/{long_job}")
    before = wait_beyond(page, 2)
    page.reload()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    assert wait_beyond(page, 0) >= before
    wait_beyond(page, before)


def test_a_restart_of_the_server_in_the_middle(page: Page, server: Server, long_job: str) -> None:
    page.goto(f"/jobs/{long_job}")
    before = wait_beyond(page, 2)
    page.evaluate("window.stays = true")
    server.restart()
    # The page finds the server again by itself, is still signed in, and goes on.
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    wait_beyond(page, before)
    assert page.evaluate("window.stays")


def test_two_tabs_agree(watched: Watched, long_job: str) -> None:
    first, second = watched.page(), watched.page()
    first.goto(f"/jobs/{long_job}")
    second.goto("/jobs")
    wait_beyond(first, 0)
    row = second.get_by_role("row").filter(has_text=long_job)
    expect(row.get_by_text("running", exact=True)).to_be_visible()
    first.get_by_role("button", name="Cancel", exact=True).click()
    first.get_by_role("button", name="Cancel the job").click()
    expect(first.get_by_text("cancelled", exact=True).first).to_be_visible()
    expect(row.get_by_text("cancelled", exact=True)).to_be_visible()
