"""What the bits of words tell of two texts, held against their words."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.checks.duplicates import Groups
from tunesmith.data.checks.sketches import similarity, sketch

SIGNS = "abcdefgh"


def share(one: str, other: str) -> float:
    """Of words that both have (Dice)."""
    first, second = Counter(one.split()), Counter(other.split())
    return 2 * (first & second).total() / (first.total() + second.total())


def told(one: str, other: str) -> float:
    sketches = sketch([one, other])
    return float(similarity(sketches[:1], sketches[1:])[0])


@pytest.mark.parametrize("num_words", [20, 100, 150, 300, 512, 700, 1500])
@pytest.mark.parametrize("changed", [1 / 20, 3 / 20, 1 / 4])
def test_the_share_of_words_is_told_and_hardly_ever_less(num_words: int, changed: float) -> None:
    rng = random.Random(num_words)
    vocabulary = ["".join(rng.choices(SIGNS, k=6)) for _ in range(4000)]
    errors = []
    for _ in range(60):
        words = rng.choices(vocabulary, k=num_words)
        other = list(words)
        for place in rng.sample(range(num_words), round(changed * num_words)):
            other[place] = rng.choice(vocabulary)
        pair = " ".join(words), " ".join(other)
        errors.append(told(*pair) - share(*pair))
    if num_words <= 512 and changed < 1 / 6:  # no sample, and no fewer in common than are asked for
        assert np.mean(np.array(errors) > -1e-9) > 0.95
    assert min(errors) > -0.05
    assert np.quantile(errors, 0.9) < 0.1
    if num_words == 20:
        assert np.median(np.abs(errors)) < 1e-9


def test_words_in_another_order_are_the_same_and_a_word_twice_is_not_none() -> None:
    text = "the cat sat on the mat and the dog on the rug"
    assert told(text, " ".join(reversed(text.split()))) == 1
    assert told(text, f"{text} cat cat cat") == pytest.approx(share(text, f"{text} cat cat cat"))


def test_texts_in_scripts_without_spaces_have_a_word_for_each_sign() -> None:
    text = "\u5979\u5468\u4e00\u53bb\u4e86\u5b66\u6821\u4f46\u662f\u5374\u53d1\u73b0" * 2 + "\u6ca1"
    assert told(text, text[:-1] + "\u6709") == pytest.approx(1 - 2 / 50)


def test_a_short_text_has_no_minima() -> None:
    sketches = sketch(["", "short", "a text that is long enough to compare"])
    assert sketches["minima"].any(axis=1).tolist() == [False, False, True]


@given(st.lists(st.text("ab \u5b66\u0301", max_size=80), max_size=20))
def test_a_sketch_does_not_depend_on_what_it_is_made_with(texts: list[str]) -> None:
    alone = [sketch([text])[0] for text in texts]
    assert [each.tobytes() for each in sketch(texts)] == [each.tobytes() for each in alone]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_groups_are_what_joined_rows_reach(pairs: list[tuple[int, int]]) -> None:
    groups = Groups(31)
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    groups.join(left, right)
    parents = list(range(31))
    for one, other in pairs:
        low, high = sorted((parents[one], parents[other]))
        parents = [low if each == high else each for each in parents]
    assert groups.firsts(np.arange(31)).tolist() == parents
