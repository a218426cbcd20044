"""`tunesmith limits` and `tunesmith usage` on a data directory."""

from __future__ import annotations

import csv
import io
import time
from decimal import Decimal
from pathlib import Path

import pytest

from tests.service import embedded
from tests.unit.cli.conftest import Run, problem
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.store.db import open_database
from tunesmith.store.repo import audit_log, bases, limits, usage
from tunesmith.store.repo.audit_log import Filter
from tunesmith.store.repo.limits import NO_LIMIT, RateLimit
from tunesmith.store.repo.usage import Counts, UsageKey


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two days of use."""
    db = open_database(tmp_path)
    now = int(time.time())
    with db.write() as conn:
        bases.insert(conn, embedded())
        for days, project, kind in ((0, "proj_a", "completions"), (1, "proj_a", "training")):
            at = now - days * 86400
            key = UsageKey(at - at % 60, project, "key_1", "", "m", "m", kind)  # type: ignore[arg-type]
            usage.add(conn, [(key, Counts(1, 100, 25, 10, 7200, 2_000_000, 500_000, 10**9, 0))])
    db.close()
    return tmp_path


def rates(data: Path) -> RateLimit:
    db = open_database(data)
    with db.read() as conn:
        return limits.get_rates(conn, DEFAULT_PROJECT, EMBEDDED_NAME)


def test_limits_are_set_shown_and_taken_back(run: Run, data: Path) -> None:
    assert "no limit" in run("limits", "show", "--data", data).output
    command = ("limits", "set", EMBEDDED_NAME, "--data", data)
    done = run(*command, "--requests-per-minute", "60", "--jobs-per-day", "none")
    assert done.exit_code == 0, done.output
    run(*command, "--tokens-per-minute", "5000")
    assert rates(data) == RateLimit(60, None, 5000, NO_LIMIT)
    shown = run("limits", "show", "--data", data).output
    assert "60" in shown and "5,000" in shown
    run(*command, "--requests-per-minute", "default")
    assert rates(data).requests_per_minute is None
    db = open_database(data)
    with db.read() as conn:
        rows = audit_log.page(conn, Filter(actions=("rate_limit.updated",))).rows
    assert len(rows) == 3 and rows[0].detail["changes_requested"] == {"requests_per_minute": None}
    for wrong in (("--requests-per-minute", "-1"), ("--requests-per-minute", "many"), ()):
        assert problem(run(*command, *wrong))
    assert "base list" in problem(
        run("limits", "set", "nothing", "--jobs-per-day", "1", "--data", data)
    )
    assert problem(run(*command, "--project", "proj_none", "--jobs-per-day", "1"))


def test_budgets(run: Run, data: Path) -> None:
    assert run("limits", "spend", DEFAULT_PROJECT, "12.50", "--data", data).exit_code == 0
    assert "of USD 12.50" in run("limits", "show", "--data", data).output
    assert run("limits", "spend", DEFAULT_PROJECT, "default", "--data", data).exit_code == 0
    assert "no limit" in run("limits", "show", "--data", data).output.splitlines()[-1]
    for owner, amount in (("key_none", "1"), (DEFAULT_PROJECT, "-1"), (DEFAULT_PROJECT, "x")):
        assert problem(run("limits", "spend", owner, "--data", data, "--", amount))


def test_usage_as_a_table_and_as_csv(run: Run, data: Path) -> None:
    table = run("usage", "--data", data).output
    assert "proj_a" in table and "completions" in table and "training" in table
    assert "30 days, USD 2.0050" in table
    text = run("usage", "--by", "day,project,key", "--csv", "--data", data).output
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["trained"], first["requests"], first["machine_hours"]) == ("100", "0", "2.0000")
    assert (second["requests"], second["input"], second["cached"]) == ("1", "100", "25")
    assert (second["output"], second["key"], Decimal(second["usd"])) == (
        "10",
        "key_1",
        Decimal("1.0025"),
    )
    whole = run("usage", "--by", "project", "--csv", "--data", data).output.splitlines()
    assert len(whole) == 2 and whole[1].startswith("proj_a,1,100,25,10,100,")
    assert "Nothing was used" in run("usage", "--days", "1", "--data", open_empty(data)).output
    assert "colour" in problem(run("usage", "--by", "colour", "--data", data))


def test_small_sums_are_not_shown_as_nothing(run: Run, data: Path) -> None:
    db = open_database(data)
    now = int(time.time())
    with db.write() as conn:
        for project, nanos in (("proj_small", 4_200), ("proj_least", 1)):
            key = UsageKey(now - now % 60, project, "key_2", "", "m", "m", "completions")
            usage.add(conn, [(key, Counts(1, 10, 0, 5, 0, nanos))])
        limits.set_budget(conn, "proj_small", 10**9)
    db.close()
    table = run("usage", "--by", "project", "--data", data).output
    assert "0.000004200" in table and "0.000000001" in table and "2.005000000" in table
    assert "30 days, USD 2.005004201" in table
    shown = run("limits", "show", "--data", data).output
    assert "proj_small: USD 0.0000042 in" in shown


def open_empty(data: Path) -> Path:
    open_database(data / "empty").close()
    return data / "empty"
