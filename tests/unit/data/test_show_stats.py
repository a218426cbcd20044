"""What is shown of rows: tokens that are exactly the trained ones, histograms that lose nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.data.conftest import Rendering
from tunesmith.data import show, stats
from tunesmith.data.formats import ChatRow, read_rows
from tunesmith.data.rows import read_any
from tunesmith.data.sequences import sequences
from tunesmith.data.stats import Stats, balance, histogram

DEMO = Path(show.__file__).parents[1] / "assets/demo/snips_heldout.jsonl"


def row(*texts: str) -> ChatRow:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return ChatRow(1, 1, messages)


@pytest.mark.parametrize("family", ["ours", "qwen2.5", "llama3"])
def test_tokens_are_the_example_s(rendering: Callable[[str], Rendering], family: str) -> None:
    _, renderer = rendering(family)
    text = "Caf\u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d <|end|>"
    (example,) = renderer.examples(row("Hi " + text, text, "And?", "No."))
    shown = show.tokens(renderer, example, 10)
    assert [number for token in shown for number in token.ids] == example.ids
    trained = [bool(weight) for weight in example.weights]
    assert [token.trained for token in shown for _ in token.ids] == trained
    assert text in "".join(token.text for token in shown)
    assert sum(len(token.ids) for token in shown if not token.beyond) in range(7, 14)
    last = [token for token in shown if token.special][-1]
    assert last.trained and set(last.ids) <= renderer.stop_ids


def test_both_answers_of_a_pair_are_learned_whatever_their_weights(
    tmp_path: Path, rendering: Callable[[str], Rendering]
) -> None:
    answers = ({"role": "assistant", "content": text, "weight": 0} for text in ("Yes.", "No."))
    preferred, rejected = ([answer] for answer in answers)
    prompt = {"messages": [{"role": "user", "content": "Is it?"}]}
    value = {"input": prompt, "preferred_output": preferred, "non_preferred_output": rejected}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(value))
    _, renderer = rendering("ours")
    [found] = read_any(path, "dpo")
    assert [any(each.example.weights) for each in sequences(renderer, found)] == [True, True]


def test_spans_part_what_is_trained_from_what_is_not(
    rendering: Callable[[str], Rendering],
) -> None:
    _, renderer = rendering("ours")
    (example,) = renderer.examples(row("One", "two", "three", "four"))
    parts = show.spans(show.tokens(renderer, example, 99))
    assert [part.trained for part in parts] == [False, True, False, True]
    assert sum(len(token.ids) for part in parts for token in part.tokens) == len(example.ids)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300))
def test_histograms_count_every_value_once(values: list[int]) -> None:
    bins = histogram(values)
    assert sum(each.count for each in bins) == len(values)
    assert len(bins) <= stats.NUM_BINS
    assert bins[0].low <= min(values) and bins[-1].high >= max(values)
    for one, other in pairwise(bins):
        assert one.high + 1 == other.low
    assert all(
        each.count == sum(each.low <= value <= each.high for value in values) for each in bins
    )


def test_real_rows() -> None:
    found = Stats()
    for each in read_rows(DEMO):
        found.add(each, 10, 2)
    assert found.labels is not None and set(found.labels.values()) == {40}
    assert found.roles == {"system": 280, "user": 280, "assistant": 280}
    assert balance(found.labels.values()) == pytest.approx(1)
    assert (sum(found.tokens), found.trained) == (2800, 560)
    assert set(found.turns) == {2}


def test_answers_that_are_texts_are_no_labels() -> None:
    found = Stats()
    for number in range(50):
        message = {"role": "assistant", "content": f"Answer {number}"}
        found.add(ChatRow(1, 1, [message]), None, 0)
    assert found.labels is None and found.num_not_rendered == 50
    assert stats.labels(Counter(yes=1), 1) is None
