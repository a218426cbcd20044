"""Draws follow OpenAI's arithmetic and depend on nothing but their own request."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import EngineError
from tunesmith.serve.protocol import MIN_LOGPROB, GenRequest
from tunesmith.serve.sampler import Drawn, Draws, draw

SCORES = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])


def draws(seed: int = 0, index: int = 0, **options: Any) -> Draws:
    options = {"max_new_tokens": 8, "stop_ids": frozenset(), **options}
    return Draws(GenRequest(Path("/b"), [1], **options), seed, index)


def token(scores_V: torch.Tensor, wanted: Draws) -> int:
    [drawn] = draw(scores_V[None].clone(), [wanted])
    assert isinstance(drawn, Drawn)
    return drawn.token_id


def frequencies(num_draws: int, **options: Any) -> list[float]:
    counts = Counter(token(SCORES, draws(seed, **options)) for seed in range(num_draws))
    return [counts[number] / num_draws for number in range(len(SCORES))]


def test_greedy_takes_the_best() -> None:
    assert token(SCORES, draws(temperature=0.0)) == 0
    assert token(SCORES, draws(top_p=0.0)) == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_probabilities(temperature: float) -> None:
    expected = torch.softmax(SCORES / temperature, -1).tolist()
    found = frequencies(4000, temperature=temperature)
    assert found == pytest.approx(expected, abs=0.03)


def test_top_p_keeps_the_fewest_tokens_that_fill_it() -> None:
    # Probabilities 0.644, 0.237, 0.087, 0.032: 0.8 needs two of them.
    found = frequencies(2000, top_p=0.8)
    assert found[2:] == [0, 0, 0]
    assert found[0] == pytest.approx(0.731, abs=0.04)
    assert frequencies(200, top_p=0.64)[0] == 1


def test_penalties_count_generated_tokens() -> None:
    wanted = draws(temperature=0.0, frequency_penalty=0.4, presence_penalty=0.3)
    wanted.record(0)
    assert token(SCORES, wanted) == 0  # 2 - 0.4 - 0.3 = 1.3
    wanted.record(0)
    assert token(SCORES, wanted) == 1  # 2 - 0.8 - 0.3 = 0.9


def test_bias_is_added_to_the_scores() -> None:
    assert token(SCORES, draws(temperature=0.0, logit_bias={3: 3.5})) == 3
    assert token(SCORES, draws(temperature=0.0, logit_bias={0: -100.0, 1: -100.0})) == 2


def test_log_probabilities_are_of_the_raw_scores() -> None:
    wanted = draws(temperature=0.0, logit_bias={2: 9.0}, top_logprobs=2)
    [drawn] = draw(SCORES[None].clone(), [wanted])
    assert isinstance(drawn, Drawn)
    assert drawn.logprob is not None
    raw = torch.log_softmax(SCORES, -1)
    assert drawn.token_id == 2
    assert drawn.logprob.logprob == pytest.approx(raw[2].item(), abs=1e-6)
    assert [other for other, _ in drawn.logprob.top] == [0, 1]
    assert drawn.logprob.top[1][1] == pytest.approx(raw[1].item(), abs=1e-6)


def test_log_probabilities_have_a_floor_and_may_name_no_others() -> None:
    scores = torch.tensor([[0.0, -1e6]])
    [drawn] = draw(scores, [draws(temperature=0.0, logit_bias={1: 2e6}, top_logprobs=0)])
    assert isinstance(drawn, Drawn)
    assert drawn.logprob is not None
    assert drawn.logprob.logprob == MIN_LOGPROB
    assert drawn.logprob.top == []


def test_scores_that_are_no_numbers_are_noticed() -> None:
    scores = torch.stack((SCORES, SCORES * math.nan, SCORES))
    rows = [draws(1), draws(2), draws(1)]
    first, broken, last = draw(scores, rows)
    assert isinstance(broken, EngineError)
    assert first == last


OPTIONS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.7, 1.0]),
        "top_p": st.sampled_from([0.5, 0.9, 1.0]),
        "top_logprobs": st.sampled_from([None, 0, 3]),
        "presence_penalty": st.sampled_from([0.0, 1.0]),
    }
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(OPTIONS, st.integers(0, 99)), min_size=1, max_size=6))
def test_a_row_does_not_depend_on_its_mates(rows: list[tuple[dict[str, Any], int]]) -> None:
    scores_BV = torch.randn(len(rows), 50, generator=torch.Generator().manual_seed(1))
    wanted = [draws(seed, **options) for options, seed in rows]
    for row in wanted:
        row.counts[7] = 2
    together = draw(scores_BV.clone(), wanted)
    for row, mate in enumerate(wanted):
        assert draw(scores_BV[row : row + 1].clone(), [mate]) == [together[row]]


def test_seed_choice_and_position_each_change_the_draw() -> None:
    first = draws(5)
    numbers = [first.uniform(), draws(6).uniform(), draws(5, index=1).uniform()]
    first.record(3)
    numbers.append(first.uniform())
    assert len(set(numbers)) == 4
    assert draws(5).uniform() == numbers[0]
    assert all(0 <= number < 1 for number in numbers)
    assert draws(-1).uniform() != draws(1).uniform()


def test_a_token_without_probability_is_never_drawn() -> None:
    scores = torch.full((300,), -1e9)
    scores[[4, 250]] = 0.0
    assert {token(scores, draws(seed)) for seed in range(60)} == {4, 250}


def test_top_k_keeps_the_likeliest() -> None:
    found = frequencies(600, top_k=2)
    assert found[2:] == [0, 0, 0]
    assert found[1] > 0
    assert frequencies(100, top_k=1)[0] == 1


def test_min_p_keeps_what_is_near_the_likeliest() -> None:
    # Shares of the likeliest: 1, 0.37, 0.14, 0.05, 0.
    assert frequencies(600, min_p=0.2)[2:] == [0, 0, 0]
    assert frequencies(600, min_p=0.1)[2] > 0
    assert frequencies(100, min_p=1.0)[0] == 1


def test_top_p_is_a_share_of_what_the_others_left() -> None:
    # 0.644 and 0.237 are left, 0.73 and 0.27 of their sum: the first alone fills 0.7.
    assert frequencies(200, top_k=2, top_p=0.7)[0] == 1
    assert frequencies(600, top_k=2, top_p=0.8)[1] > 0
