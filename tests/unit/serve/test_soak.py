"""Adapters that come and go under traffic; `make engine-soak` does the same for minutes."""

from __future__ import annotations

from pathlib import Path

from tests.soak_engine import soak, write_adapters
from tests.tiny_base import write_tiny_base


def test_every_answer_is_of_the_right_adapter_while_adapters_come_and_go(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "tiny")
    adapters = write_adapters(base, tmp_path / "adapters", 64)
    result = soak(base, adapters, num_clients=8, seconds=3.0)
    assert result.problems == []
    assert result.wrong == []
    assert result.num_answers > 30
    assert result.num_loads_dropped > 0
