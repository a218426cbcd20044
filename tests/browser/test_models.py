"""The tree of models: a model trained on from another, and what is left when one is deleted."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.server import Server, eventually

BASE = "tunesmith-nano"


def tuned(server: Server, model: str, file: str, suffix: str) -> str:
    client = server.client
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=file,
        suffix=suffix,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 32}},
        },
    )
    eventually(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded", 600)
    return str(client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model)


@pytest.fixture(scope="module")
def line(server: Server, rows_file: str) -> tuple[str, str]:
    """A model, and one that was trained on from it."""
    parent = tuned(server, BASE, rows_file, "parent")
    return parent, tuned(server, parent, rows_file, "child")


def test_a_refusal_to_delete_is_shown(page: Page, line: tuple[str, str]) -> None:
    parent, _ = line

    def forbidden(route: Route) -> None:
        # The server's own refusal: of a base it is the same for every key.
        if route.request.method == "DELETE":
            route.continue_(url=route.request.url.split("/v1/")[0] + f"/v1/models/{BASE}")
        else:
            route.fallback()

    page.route("**/v1/models/*", forbidden)
    page.goto("/models")
    page.get_by_role("button", name=parent).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("alert")).to_contain_text("No permission.")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("button", name=parent)).to_be_visible()


def test_what_came_out_of_a_deleted_model_stays(
    page: Page, server: Server, line: tuple[str, str]
) -> None:
    parent, child = line
    page.goto("/models")
    made = page.get_by_role("list", name=f"Made of {parent}")
    expect(made.get_by_role("button", name=child)).to_be_visible()
    server.client.models.delete(parent)
    page.reload()
    expect(made.get_by_role("button", name=child)).to_be_visible()
    gone = page.get_by_role("button", name=parent)
    expect(gone).to_contain_text("deleted")
    expect(gone).to_be_disabled()
