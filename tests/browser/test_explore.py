"""Rows are found by how long they are, as the API finds them."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import keep, settled
from tests.browser.server import Server


def num_rows(server: Server, file: str, **asked: Any) -> int:
    body = {"file": file, **asked}
    found: Any = server.client.post("/tunesmith/data/index", body=body, cast_to=object)
    return len(found["number"])


def test_rows_of_a_length(page: Page, server: Server, rows_file: str) -> None:
    page.goto(f"/data/{rows_file}?tab=explore")
    settled(page)
    counter = page.get_by_role("status").filter(has_text="row")
    expect(counter).to_have_text("120 rows")
    page.get_by_label("Shortest").fill("100")
    page.get_by_label("Longest").fill("150")
    passing = num_rows(server, rows_file, unit="characters", min_length=100, max_length=150)
    assert 0 < passing < 120
    expect(counter).to_have_text(f"{passing} of 120 rows")
    page.get_by_label("Measured in").select_option("tokens")
    tokens = {"unit": "tokens", "base": "tunesmith-nano"}
    passing = num_rows(server, rows_file, **tokens, min_length=100, max_length=150)
    expect(counter).to_have_text(f"{passing} of 120 rows")
    page.get_by_label("Longest").fill("many")
    expect(page.get_by_label("Longest")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Longest").fill("1")
    expect(page.get_by_text("No row passes this filter")).to_be_visible()
    page.get_by_role("button", name="Show all rows").click()
    expect(counter).to_have_text("120 rows")
    # It is in the address, so it outlives the page.
    page.goto(f"/data/{rows_file}?tab=explore&unit=tokens&min=30")
    passing = num_rows(server, rows_file, **tokens, min_length=30)
    expect(counter).to_have_text(f"{passing} of 120 rows" if passing < 120 else "120 rows")
    keep(page, "explore-length")
