"""From the first start to a model that is tuned, asked and deleted, by hand in a browser."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import CONTEXT, PATIENCE_MS
from tests.browser.rows import with_faults
from tests.browser.server import Server

TRAINING_MS = 600_000


def test_the_whole_way(server: Server, browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(base_url=server.url, **CONTEXT)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    sign_in_by_link(page, server)
    upload_and_repair(page, tmp_path)
    name = train(page, server)
    compare(page, name)
    keep_the_right_answer(page, server)
    delete(page, name)
    context.close()
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve(name)


def sign_in_by_link(page: Page, server: Server) -> None:
    page.goto(server.link)
    expect(page.get_by_role("heading", name="Home")).to_be_visible()
    assert "link=" not in page.url
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    second = page.context.browser
    assert second is not None
    again = second.new_page()
    again.goto(server.link)
    # It has been used.
    expect(again.get_by_label("API key")).to_be_visible(timeout=PATIENCE_MS)
    again.close()


def upload_and_repair(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(with_faults(80))
    page.get_by_role("link", name="Data", exact=True).click()
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_role("button", name="Fix all safe").click()
    expect(page.get_by_role("dialog").get_by_text("wrong_role").first).to_be_visible()
    page.get_by_role("button", name="Save as new file").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).not_to_have_text("questions.jsonl")


def train(page: Page, server: Server) -> str:
    [fixed, *_] = server.client.files.list(purpose="fine-tune").data
    page.goto(f"/jobs/new?file={fixed.id}")
    page.get_by_label("Suffix").fill("journey")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Epochs").fill("2")
    page.locator("button[type=submit]").click()
    page.wait_for_url("**/jobs/ftjob-*")
    # Nothing is loaded anew: what is shown comes by the stream.
    page.evaluate("window.stays = true")
    expect(page.get_by_text("succeeded", exact=True)).to_be_visible(timeout=TRAINING_MS)
    assert page.evaluate("window.stays")
    job = server.client.fine_tuning.jobs.retrieve(page.url.rsplit("/", 1)[1].split("?")[0])
    assert job.fine_tuned_model is not None and job.trained_tokens is not None
    expect(page.get_by_text(f"{job.trained_tokens:,} tokens trained")).to_be_visible()
    return job.fine_tuned_model


def compare(page: Page, name: str) -> None:
    page.get_by_role("link", name="Try it").first.click()
    for number, model in ((1, "tunesmith-nano"), (2, name)):
        expect(page.get_by_label(f"Model of column {number}")).to_have_value(model)
    page.get_by_label("System prompt").fill("Name the intent of the customer's message.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Longest answer").fill("24")
    page.get_by_label("Prompt", exact=True).fill("My new card has not arrived yet.")
    page.get_by_role("button", name="Run").click()
    for number in (1, 2):
        column = page.get_by_role("region", name=f"Column {number}")
        expect(column.get_by_text("total ")).to_be_visible()
        expect(column.get_by_text(" tokens", exact=False).first).to_be_visible()
    page.locator("[data-index='0']").first.hover()
    expect(page.get_by_text(" %").first).to_be_visible()
    page.get_by_role("tab", name="Difference to column 1").click()
    expect(page.locator("ins, del").first).to_be_visible()
    page.get_by_role("button", name="View code").click()
    expect(page.get_by_role("dialog")).to_contain_text("client.chat.completions.create")
    page.keyboard.press("Escape")


def keep_the_right_answer(page: Page, server: Server) -> None:
    page.get_by_role("button", name="More for column 2").click()
    page.get_by_role("menuitem", name="Add corrected answer to data").click()
    page.get_by_label("Right answer").fill("card_arrival")
    page.get_by_role("button", name="Save as new file").click()
    expect(page.get_by_text("Saved as corrected.jsonl").first).to_be_visible()
    [made, *_] = server.client.files.list(purpose="fine-tune").data
    [row] = [json.loads(line) for line in server.client.files.content(made.id).text.splitlines()]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][-1]["content"] == "card_arrival"
    page.get_by_role("button", name="More for column 2").click()
    page.get_by_role("menuitem", name="Save as test case").click()
    page.get_by_label("Expected answer").fill("card_arrival")
    page.get_by_role("button", name="Save as new file").click()
    expect(page.get_by_text("Saved as test-cases.jsonl").first).to_be_visible()
    assert len(server.client.files.list(purpose="evals").data) == 1


def delete(page: Page, name: str) -> None:
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("button", name=name).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.endswith(".zip")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    # Its checkpoints are still there, so it keeps its place among them, and opens nothing.
    expect(page.get_by_role("button", name=name).first).to_be_disabled()
