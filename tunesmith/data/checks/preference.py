"""Preferences as a whole: whether the length alone decides."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

MIN_ROWS = 20
BIAS = 0.8


def length_bias(columns: NDArray[Any]) -> str:
    """What is wrong in words; empty if neither the longer nor the shorter answer always wins."""
    good = columns["answer_chars"].astype(int)
    bad = columns["rejected_chars"].astype(int)
    differ = good != bad
    num = int(differ.sum())
    if num < MIN_ROWS:
        return ""
    longer = int((good > bad).sum())
    for wins, word in ((longer, "longer"), (num - longer, "shorter")):
        if wins >= BIAS * num:
            return f"In {wins} of {num} pairs the preferred answer is the {word} one."
    return ""
