"""A killed trainer goes on where it was: a few kills with every commit (faults/ has the many)."""

from __future__ import annotations

from pathlib import Path

from tests.trainer_kill import kill_and_compare


def test_four_kills_leave_no_trace_in_the_adapter(tmp_path: Path) -> None:
    found = kill_and_compare(tmp_path, num_kills=4, seed=1)
    assert sum(found.values()) == 4
