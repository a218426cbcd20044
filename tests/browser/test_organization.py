"""Keys, usage and limits: what the screens do and show is what the API does and says."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import CONTEXT, PATIENCE_MS, keep
from tests.browser.server import Server

DAY_S = 86_400


def get(server: Server, path: str, **query: Any) -> Any:
    return server.client.get(path, cast_to=object, options={"params": query})


def cells(page: Page, row: str) -> list[str]:
    """The texts of the numbers of a row, which is found by its name."""
    head = page.get_by_role("rowheader", name=row, exact=True)
    return page.locator("tr").filter(has=head).get_by_role("cell").all_inner_texts()


def test_a_key_is_made_seen_once_and_revoked(page: Page, server: Server) -> None:
    page.goto("/settings")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name", exact=True).fill("<b>nightly</b>")
    page.get_by_label("Role", exact=True).select_option("reader")
    page.get_by_label("Expires").select_option(label="In 7 days")
    page.get_by_label("Only some of what the role may do").click()
    page.get_by_label("api.models.read").check()
    page.get_by_label("api.files.write").check()
    page.get_by_role("button", name="Create key").click()
    secret = page.get_by_label("The new key").inner_text().strip()
    page.get_by_role("button", name="I have copied it").click()
    assert secret not in page.content()
    found = get(server, "/tunesmith/keys", limit=100)["data"]
    [made] = [key for key in found if key["name"] == "<b>nightly</b>"]
    assert (made["role"], made["scopes"]) == ("reader", ["api.models.read"])
    assert 6 * DAY_S < made["expires_at"] - time.time() < 8 * DAY_S
    client = OpenAI(base_url=f"{server.url}/v1", api_key=secret, max_retries=0)
    assert client.models.list().data
    page.get_by_role("button", name="Revoke <b>nightly</b>").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    # What is behind a dialog has no role, so its end is waited for first.
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Revoke <b>nightly</b>")).to_have_count(0)
    with pytest.raises(APIStatusError) as refused:
        client.models.list()
    assert refused.value.status_code == 401


def test_who_may_not_see_is_told_who_may(server: Server, browser: Browser) -> None:
    body = {"name": "member", "role": "member"}
    made: Any = server.client.post("/tunesmith/keys", body=body, cast_to=object)
    context = browser.new_context(base_url=server.url, **CONTEXT)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto("/signin")
    page.get_by_label("API key").fill(made["value"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{server.url}/")
    for path, who, scope in (
        ("/settings", "Owners of the project see its keys", "api.keys.read"),
        ("/usage", "Owners of the default project see the usage", "api.organization.read"),
    ):
        page.goto(path)
        expect(page.get_by_role("heading", name=who)).to_be_visible()
        expect(page.get_by_text(re.compile(re.escape(scope)))).to_be_visible()
    # What holds for them they see, and cannot change.
    page.goto("/limits")
    limits = page.get_by_role("table", name="Rate limits")
    expect(limits.get_by_role("cell", name="tunesmith-nano", exact=True)).to_be_visible()
    expect(page.get_by_role("table", name="Spend limits").get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("button", name=re.compile("^Change"))).to_have_count(0)
    page.set_viewport_size({"width": 360, "height": 740})
    keep(page, "limits-member-360")
    context.close()


def test_usage_is_the_apis(page: Page, server: Server) -> None:
    model = "tunesmith-nano"
    for _ in range(3):
        message: Any = {"role": "user", "content": "How are you?"}
        server.client.chat.completions.create(model=model, messages=[message], max_tokens=5)
    page.goto("/usage")
    expect(page.get_by_role("rowheader", name=model, exact=True)).to_be_visible()
    start = int(time.time()) // DAY_S * DAY_S - 29 * DAY_S
    asked = {"start_time": start, "limit": 31, "group_by[]": "model", "bucket_width": "1d"}
    buckets = get(server, "/organization/usage/completions", **asked)["data"]
    results = [each for bucket in buckets for each in bucket["results"] if each["model"] == model]
    fields = ("num_model_requests", "input_tokens", "input_cached_tokens", "output_tokens")
    sums = [sum(each[field] for each in results) for field in fields]
    assert sums[0] >= 3
    assert cells(page, model) == [f"{number:,}" for number in sums]
    page.get_by_role("tab", name="Requests").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save usage.csv").click()
    lines = saved.value.path().read_text().splitlines()
    assert len(lines) == 1 + sum(len(bucket["results"]) for bucket in buckets)


def test_limits_are_the_apis(page: Page, server: Server) -> None:
    rates = "/organization/projects/proj_default/rate_limits"
    body = {"max_requests_per_1_minute": 1234567, "max_fine_tuning_jobs_per_1_day": 4321}
    server.client.post(f"{rates}/rl-tunesmith-nano", body=body, cast_to=object)
    page.goto("/limits?project=proj_default")
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="tunesmith-nano"))
    expect(row.get_by_role("cell")).to_have_text(
        ["tunesmith-nano", "1,234,567", "no limit", "no limit", "4,321", "Change"]
    )
    page.get_by_role("button", name="Change tunesmith-nano").click()
    page.get_by_label("Requests a day").fill("-1")
    expect(page.get_by_text("A whole number, or nothing.")).to_be_visible()
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    keep(page, "limits-change")
    page.get_by_label("Requests a day").fill("50000")
    page.get_by_label("Requests a minute").fill("")
    page.get_by_label("Jobs a day").fill("")
    page.get_by_role("button", name="Save").click()
    expect(row.get_by_role("cell")).to_have_text(
        ["tunesmith-nano", "no limit", "50,000", "no limit", "no limit", "Change"]
    )
    [found] = [each for each in get(server, rates)["data"] if each["id"] == "rl-tunesmith-nano"]
    assert found["max_requests_per_1_day"] == 50000
    assert found["max_requests_per_1_minute"] == 2**31 - 1
    body = {"max_requests_per_1_day": 2**31 - 1}
    server.client.post(f"{rates}/rl-tunesmith-nano", body=body, cast_to=object)


def test_what_may_be_spent_is_changed(page: Page, server: Server) -> None:
    path = "/tunesmith/projects/proj_default/spend_limits"
    page.goto("/limits?project=proj_default")
    for text, usd in (("25.50", 25.5), ("", None)):
        page.get_by_role("button", name="Change what Default project may spend").click()
        page.get_by_label("US dollars a month").fill("much")
        expect(page.get_by_text("An amount such as")).to_be_visible()
        page.get_by_label("US dollars a month").fill(text)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert get(server, path)["data"][0]["usd_per_month"] == usd
        shown = "no limit" if usd is None else "$25.50"
        table = page.get_by_role("table", name="Spend limits")
        expect(table.get_by_role("row").nth(1).get_by_role("cell").nth(1)).to_have_text(shown)
        keep(page, f"limits-spend-{text or 'none'}")
