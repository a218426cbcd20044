"""System messages that differ by a slip of the keyboard only."""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher

from tunesmith.data.checks.view import normal

MIN_CHARS = 16
# Shares of the letters in common; or as few letters as one slip changes.
MIN_RATIO = 0.97
MAX_CHANGED = 2
# The most frequent ones are compared; the cost of a comparison is the product of the lengths.
MAX_COMPARED = 48
MAX_CHARS = 2000
DIGITS = re.compile(r"\d+")


def variants(texts: dict[int, str], counts: Counter[int]) -> dict[int, int]:
    """For each text that is almost one that more rows have, that other one; both by their hash."""
    frequent = [
        name
        for name, _ in counts.most_common()
        if MIN_CHARS <= len(texts.get(name, "")) <= MAX_CHARS
    ][:MAX_COMPARED]
    found: dict[int, int] = {}
    for place, name in enumerate(frequent):
        for model in frequent[:place]:
            if model not in found and almost_equal(texts[model], texts[name]):
                found[name] = model
                break
    return found


def almost_equal(left: str, right: str) -> bool:
    """Whether they differ in case, punctuation, spacing or a few letters; not in numbers only."""
    if normal(left) == normal(right):
        return True
    if DIGITS.sub("0", left) == DIGITS.sub("0", right):
        return False
    num_chars = len(left) + len(right)
    least = min(MIN_RATIO, 1 - MAX_CHANGED / num_chars)
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return (
        matcher.real_quick_ratio() >= least
        and matcher.quick_ratio() >= least
        and matcher.ratio() >= least
    )
