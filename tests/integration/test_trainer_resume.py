"""A killed trainer goes on where it was: a few kills with every commit (faults/ has the many)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer_kill import kill_and_compare


@pytest.mark.parametrize(("method", "num_kills"), [("supervised", 4), ("dpo", 3)])
def test_a_few_kills_leave_no_trace_in_the_adapter(
    method: str, num_kills: int, tmp_path: Path
) -> None:
    found = kill_and_compare(tmp_path, num_kills=num_kills, seed=1, method=method)
    assert sum(found.values()) == num_kills
