"""What the playground sends, and what it says when an answer does not come."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.browser.server import Server

BASE = "tunesmith-nano"


def sent(page: Page, number: int) -> list[dict[str, Any]]:
    """The bodies of the requests that a click on Run makes."""
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: bodies.append(request.post_data_json or {}))
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("total ")).to_have_count(number)
    return [body for body in bodies if "messages" in body]


def test_prompts_apart_with_examples_before_them(page: Page) -> None:
    page.goto(f"/playground?models={BASE},{BASE},{BASE}&max=4&seed=3")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_label("User 1").fill("Two and two?")
    page.get_by_label("Assistant 1").fill("Four.")
    page.get_by_role("switch", name="A prompt for each column").click()
    for number in (1, 2, 3):
        page.get_by_label(f"Prompt of column {number}").fill(f"question {number}")
    bodies = sent(page, 3)
    before = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two and two?"},
        {"role": "assistant", "content": "Four."},
    ]
    asked = sorted(body["messages"][-1]["content"] for body in bodies)
    assert asked == ["question 1", "question 2", "question 3"]
    assert all(body["messages"][:-1] == before for body in bodies)
    assert all(body["max_completion_tokens"] == 4 and body["seed"] == 3 for body in bodies)
    page.get_by_role("button", name="View code").click()
    page.get_by_role("dialog").get_by_role("tab", name="curl").click()
    code = page.get_by_role("dialog").locator("pre").inner_text()
    assert json.loads(code.split("-d '", 1)[1].rstrip().removesuffix("'")) == bodies[0]


def test_the_figures_are_the_servers(page: Page, server: Server) -> None:
    page.goto(f"/playground?models={BASE}&max=12&temperature=0")
    page.get_by_label("Prompt", exact=True).fill("Hello!")
    [body] = sent(page, 1)
    answer = server.client.chat.completions.create(
        model=body["model"], messages=body["messages"], max_completion_tokens=12, temperature=0
    )
    assert answer.usage is not None
    column = page.get_by_role("region", name="Column 1")
    expect(column).to_contain_text(str(answer.choices[0].message.content).strip())
    usage = f"{answer.usage.prompt_tokens} → {answer.usage.completion_tokens} tokens"
    expect(column.get_by_text(usage)).to_be_visible()


def test_stop_ends_an_answer(page: Page) -> None:
    def never_ending(route: Route) -> None:
        body = json.loads(route.request.post_data or "{}")
        route.continue_(post_data=json.dumps({**body, "logit_bias": {"100": 100}}))

    page.route("**/v1/chat/completions", never_ending)
    page.goto(f"/playground?models={BASE}&max=900")
    page.get_by_label("Prompt", exact=True).fill("Tell me a very long story.")
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Run")).to_be_enabled()


def test_a_refusal_is_told_in_its_column(page: Page) -> None:
    page.goto(f"/playground?models={BASE},ft:no-such-model&temperature=9")
    page.get_by_label("Prompt", exact=True).fill("Hello!")
    page.get_by_role("button", name="Run").click()
    first, second = (page.get_by_role("region", name=f"Column {number}") for number in (1, 2))
    expect(first.get_by_role("alert")).to_contain_text("temperature")
    expect(second.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("button", name="Run")).to_be_enabled()


def test_an_address_opens_the_same_again(page: Page) -> None:
    page.goto(f"/playground?models={BASE}")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Prompt", exact=True).fill("kept in this tab")
    page.get_by_role("button", name="Add a column").click()
    page.reload()
    expect(page.get_by_label("Temperature")).to_have_value("0.5")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("kept in this tab")
    expect(page.get_by_label("Model of column 2")).to_be_visible()
