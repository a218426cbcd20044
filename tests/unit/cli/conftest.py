from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.unit.cli.endpoint import Endpoint, endpoint
from tunesmith.cli import app
from tunesmith.cli.problem import explain

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"TUNESMITH_{name}", raising=False)
    for name in ("BASE_URL", "API_KEY"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def remote() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: Any, input: str | None = None) -> Result:
        return CliRunner().invoke(app.app, [str(part) for part in arguments], input=input)

    return invoke


def problem(result: Result) -> str:
    """The line on which a command ended."""
    assert isinstance(result.exception, Exception), result.output
    line = explain(result.exception)
    assert line is not None and re.fullmatch(r"[^\n]+", line)
    return line
