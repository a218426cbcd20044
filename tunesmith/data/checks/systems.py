"""System messages that differ by a slip of the keyboard only."""

from __future__ import annotations

import re
from collections import Counter

from tunesmith.data.checks.view import normal

MIN_CHARS = 16
# The share of the letters in common; or as few letters as one slip changes.
MIN_RATIO = 0.97
MAX_CHANGED = 2
# The most frequent ones are compared.
MAX_COMPARED = 48
MAX_CHARS = 2000
STRIDE = 32
"""Letters compared at once."""
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
    return is_within(left, right, int(max(MAX_CHANGED, (1 - MIN_RATIO) * num_chars)))


def is_within(left: str, right: str, most: int) -> bool:
    """Whether taking out and putting in at most so many letters makes one text the other.

    The greedy search of Myers, "An O(ND) difference algorithm": its cost is `most` squared and,
    where texts repeat themselves, at most their length times `most`.
    """
    letters, others = Counter(left), Counter(right)
    if (letters - others).total() + (others - letters).total() > most:
        return False
    reached = {1: 0}
    for num in range(most + 1):
        for diagonal in range(-num, num + 1, 2):
            below, above = reached.get(diagonal + 1, -1), reached.get(diagonal - 1, -2)
            place = below if diagonal == -num or above < below else above + 1
            place = _walk(left, right, place, place - diagonal)
            if place >= len(left) and place - diagonal >= len(right):
                return True
            reached[diagonal] = place
    return False


def _walk(left: str, right: str, at: int, other: int) -> int:
    """Where in `left` the texts begin to differ, from these places on."""
    while at < len(left) and left[at : at + STRIDE] == right[other : other + STRIDE]:
        at, other = at + STRIDE, other + STRIDE
    while at < len(left) and other < len(right) and left[at] == right[other]:
        at, other = at + 1, other + 1
    return at
