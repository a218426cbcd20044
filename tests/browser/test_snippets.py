"""The calls that the app shows are run as they stand, with a real key in the place of the word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import settled
from tests.browser.server import Server

WEB = Path(__file__).parents[2] / "web"
LANGUAGES = ("Python", "Node", "curl")


def shown(page: Page, language: str) -> str:
    page.get_by_role("tab", name=language, exact=True).click()
    code = page.locator(f"pre[aria-label={language}]")
    expect(code).to_be_visible()
    return code.inner_text()


def run(code: str, language: str, server: Server, place: Path) -> str:
    """What it prints, in a directory of its own."""
    names = {"Python": "call.py", "Node": "call.mjs", "curl": "call.sh"}
    commands = {"Python": [sys.executable], "Node": ["node"], "curl": ["bash", "-e"]}
    assert server.key not in code
    file = place / names[language]
    file.write_text(code.replace("YOUR_KEY", server.key))
    if language == "Node":
        (place / "node_modules").symlink_to(WEB / "node_modules")
    environment = {**os.environ, "OPENAI_API_KEY": server.key}
    done = subprocess.run(
        [*commands[language], str(file)],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_on_home_reaches_the_server(
    page: Page, server: Server, tmp_path: Path, language: str
) -> None:
    page.goto("/")
    settled(page)
    code = shown(page, language)
    show = {"Python": "\nprint(answer.object)", "Node": "\nconsole.log(answer.object);", "curl": ""}
    assert "chat.completion" in run(code + show[language], language, server, tmp_path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_call_of_a_new_job_creates_it(
    page: Page, server: Server, rows_file: str, tmp_path: Path, language: str
) -> None:
    page.goto(f"/jobs/new?file={rows_file}")
    settled(page)
    page.get_by_label("Suffix").fill(f'it\'s "{language}"')
    jobs = server.client.fine_tuning.jobs
    before = {job.id for job in jobs.list()}
    told = run(shown(page, language), language, server, tmp_path)
    [job] = [job for job in jobs.list() if job.id not in before]
    jobs.cancel(job.id)
    assert job.id in told
    assert job.training_file == rows_file
    assert job.to_dict()["user_provided_suffix"] == f'it\'s "{language}"'
