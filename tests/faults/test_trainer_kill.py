"""kill -9 of the trainer at 20 random instants, checkpoint writes included: the bytes are equal."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.trainer_kill import kill_and_compare


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_twenty_kills_leave_no_trace_in_the_adapter(method: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    found = kill_and_compare(tmp_path, num_kills=20, seed=seed, method=method)
    print(found)
    assert sum(found.values()) == 20
    # Instants that prove nothing are rare.
    assert found["half_written"] + found["with_checkpoint"] >= 5
