"""The demo's data and arithmetic; the demo itself is run by `make demo`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tunesmith.cli.demo import (
    MARKER,
    Score,
    expected,
    fresh_directory,
    read_rows,
    request_text,
)
from tunesmith.cli.problem import CommandFailed
from tunesmith.data.formats import read_rows as read_checked
from tunesmith.shipped import HELD_OUT_FILE as HELD_OUT
from tunesmith.shipped import TRAINING_FILE as TRAIN


def plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def test_no_held_out_text_is_trained_on() -> None:
    train = {plain(request_text(row)) for row in read_rows(TRAIN)}
    held_out = {plain(request_text(row)) for row in read_rows(HELD_OUT)}
    assert not train & held_out
    assert len(held_out) == 280


@pytest.mark.parametrize(("path", "each"), [(TRAIN, 172), (HELD_OUT, 40)])
def test_intents_are_balanced_and_rows_are_valid(path: Path, each: int) -> None:
    assert set(Counter(expected(row) for row in read_rows(path)).values()) == {each}
    assert len(list(read_checked(path))) == 7 * each


@pytest.mark.parametrize(
    ("correct", "low", "high"), [(0, 0.0, 0.0135), (140, 0.4418, 0.5582), (280, 0.9865, 1.0)]
)
def test_wilson_interval(correct: int, low: float, high: float) -> None:
    assert Score(correct, 280).interval() == pytest.approx((low, high), abs=1e-4)


def test_only_a_directory_of_its_own_is_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "demo"
    fresh_directory(mine)
    (mine / "old").touch()
    fresh_directory(mine)
    assert [path.name for path in mine.iterdir()] == [MARKER]
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis").touch()
    with pytest.raises(CommandFailed, match="no demo made it"):
        fresh_directory(other)
    assert (other / "thesis").exists()
