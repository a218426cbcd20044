"""axe-core finds nothing serious on any screen, in either theme; SHOTS=DIR keeps pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import CONTEXT, PATIENCE_MS, keep, settled
from tests.browser.server import Server, eventually

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = ("serious", "critical")
SCREENS = {
    "home": "/",
    "data": "/data",
    "data-results": "/data?show=results",
    "report": "/data/{file}?tab=report",
    "explore": "/data/{file}?tab=explore&row=1",
    "tokens": "/data/{file}?tab=tokens",
    "stats": "/data/{file}?tab=stats",
    "split": "/data/{file}?tab=split",
    "jobs": "/jobs",
    "new-job": "/jobs/new?file={file}",
    "curves": "/jobs/{job}",
    "samples": "/jobs/{job}?tab=samples",
    "examples": "/jobs/{job}?tab=examples&row=1",
    "events": "/jobs/{job}?tab=events",
    "recipe": "/jobs/{job}?tab=recipe",
    "files": "/jobs/{job}?tab=files",
    "compare": "/compare?jobs={job}",
    "models": "/models",
    "model": "/models?model={model}",
    "playground": "/playground?models=tunesmith-nano,{model}&max=8",
    "settings": "/settings",
    "evals": "/evals",
    "usage": "/usage",
    "limits": "/limits",
    "not-found": "/jobs/ftjob-nothing",
}


@pytest.fixture(scope="module")
def names(server: Server, rows_file: str) -> dict[str, str]:
    """A file, a job that has succeeded, and its model."""
    client = server.client
    job = client.fine_tuning.jobs.create(
        model="tunesmith-nano",
        training_file=rows_file,
        suffix="seen",
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 16}},
        },
    )
    eventually(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded", 600)
    model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    return {"file": rows_file, "job": job.id, "model": str(model)}


@pytest.fixture(scope="module", params=["light", "dark"])
def themed(
    request: pytest.FixtureRequest, server: Server, browser: Browser, session: dict[str, Any]
) -> Iterator[Page]:
    context = browser.new_context(
        base_url=server.url,
        storage_state=session,  # type: ignore[arg-type]
        color_scheme=request.param,
        **CONTEXT,
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


def violations(page: Page) -> list[str]:
    page.evaluate(AXE.read_text())
    found: Any = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_keeps_people_out(themed: Page, names: dict[str, str], screen: str) -> None:
    themed.goto(SCREENS[screen].format(**names))
    settled(themed)
    if screen == "playground":
        themed.get_by_label("Prompt", exact=True).fill("Hello")
        themed.get_by_role("button", name="Run").click()
        expect(themed.get_by_text("total ")).to_have_count(2)
    keep(themed, screen)
    assert violations(themed) == []


@pytest.mark.parametrize("opened", ["palette", "code", "delete"])
def test_nor_what_opens_above(themed: Page, names: dict[str, str], opened: str) -> None:
    themed.goto(SCREENS["playground" if opened == "code" else "model"].format(**names))
    settled(themed)
    if opened == "palette":
        themed.keyboard.press("Control+k")
    else:
        name = "View code" if opened == "code" else "Delete"
        themed.get_by_role("button", name=name, exact=True).click()
    expect(themed.get_by_role("dialog").or_(themed.get_by_role("alertdialog"))).to_be_visible()
    keep(themed, opened)
    assert violations(themed) == []


def test_the_way_in(server: Server, browser: Browser) -> None:
    for theme in ("light", "dark"):
        context = browser.new_context(base_url=server.url, color_scheme=theme, **CONTEXT)
        page = context.new_page()
        page.goto("/signin")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        keep(page, "signin")
        assert violations(page) == []
        context.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_a_phone_shows_all_of_it(
    server: Server, browser: Browser, session: dict[str, Any], names: dict[str, str], screen: str
) -> None:
    narrow = {**CONTEXT, "viewport": {"width": 360, "height": 740}}
    context = browser.new_context(base_url=server.url, storage_state=session, **narrow)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(SCREENS[screen].format(**names))
    settled(page)
    keep(page, f"{screen}-360")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    context.close()
