"""kill -9 of the trainer at 20 random instants, checkpoint writes included: the bytes are equal."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.trainer_kill import kill_and_compare


def test_kills_leave_no_trace_in_a_whole_model(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    hyperparameters = {"n_epochs": 12, "batch_size": 3, "finetuning_type": "full"}
    found = kill_and_compare(tmp_path, num_kills=10, seed=seed, hyperparameters=hyperparameters)
    print(found)
    assert found["half_written"] + found["with_checkpoint"] >= 3


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_twenty_kills_leave_no_trace_in_the_adapter(method: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    found = kill_and_compare(tmp_path, num_kills=20, seed=seed, method=method)
    print(found)
    assert sum(found.values()) == 20
    # Instants that prove nothing are rare.
    assert found["half_written"] + found["with_checkpoint"] >= 5
