"""The tutorials' own examples, to the cent, and the break-even."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tunesmith.data.breakeven import Rate, break_even
from tunesmith.data.openai_tokens import encoding_of
from tunesmith.data.prices import PUBLISHED, published, training_cost


@pytest.mark.parametrize(
    ("model", "num_tokens", "n_epochs", "dollars"),
    [
        ("davinci-002", 150_000, 4, "3.60"),
        ("gpt-3.5-turbo", 200_000, 5, "8.00"),
        # The tutorial names no epochs; 0.90 is the published price for the default of 3.
        ("gpt-4o-mini", 100_000, 3, "0.90"),
    ],
)
def test_the_tutorials_examples(model: str, num_tokens: int, n_epochs: int, dollars: str) -> None:
    price = published(model)
    assert price is not None
    assert training_cost(num_tokens, n_epochs, price.training) == Decimal(dollars)


def test_the_tutorial_s_table() -> None:
    """Training, input and output per 1,000 tokens, as tutorials quote them."""
    for model, expected in {
        "babbage-002": ("0.0004", "0.0016", "0.0016"),
        "davinci-002": ("0.0060", "0.0120", "0.0120"),
        "gpt-3.5-turbo-0613": ("0.0080", "0.0120", "0.0160"),
    }.items():
        price = PUBLISHED[model]
        assert (price.training, price.input, price.output) == tuple(map(Decimal, expected))


def test_names_find_their_price_and_have_an_encoding() -> None:
    assert published("gpt-4o-mini-2024-07-18") == PUBLISHED["gpt-4o-mini"]
    assert published("ft:gpt-4o-2024-08-06:acme::x") == PUBLISHED["gpt-4o"]
    assert published("gpt-3.5-turbo-0613") == PUBLISHED["gpt-3.5-turbo-0613"]
    assert published("llama-3") is None
    assert all(map(encoding_of, PUBLISHED))


def test_a_shorter_prompt_pays_the_training_back() -> None:
    base, tuned = Rate(Decimal("0.01"), Decimal("0.02")), Rate(Decimal("0.02"), Decimal("0.04"))
    found = break_even(Decimal("9.00"), base, tuned, 2000, 200, 100, requests_per_day=50)
    assert (found.cost_before, found.cost_after) == (Decimal("0.022"), Decimal("0.008"))
    assert found.num_requests == 643 and found.num_days == 643 / 50
    at_even = break_even(Decimal(0), base, tuned, 2000, found.longest_prompt, 100)
    assert at_even.cost_before == at_even.cost_after


def test_a_prompt_that_stays_long_never_does() -> None:
    base, tuned = Rate(Decimal(1), Decimal(1)), Rate(Decimal(2), Decimal(2))
    found = break_even(Decimal(5), base, tuned, 100, 90, 10, 1)
    assert (
        found.num_requests is None
        and found.num_days is None
        and found.cost_before < found.cost_after
    )
    assert found.longest_prompt == 45
