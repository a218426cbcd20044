from __future__ import annotations

from decimal import Decimal

from tunesmith.limits.budgets import Budgets

OWN = {"proj_own": 7, "proj_none": 0, "key_own": 3}


def test_a_project_has_its_own_or_the_default_and_a_key_its_own() -> None:
    budgets = Budgets.of(Decimal("0.000000005"), OWN)
    assert [budgets.project(name) for name in ("proj_own", "proj_none", "proj")] == [7, 0, 5]
    assert [budgets.key(name) for name in ("key_own", "key")] == [3, None]
    assert budgets.both("proj_own", "key_own") == [("proj_own", 7), ("key_own", 3)]
    assert budgets.both("proj_none", "key") == [("proj_none", 0)]
    assert budgets.both("proj", None) == [("proj", 5)]


def test_where_the_settings_say_nothing_there_is_no_default() -> None:
    assert Budgets.of(None, OWN).both("proj", "key") == []
