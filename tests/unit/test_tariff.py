"""Money is exact, and the most particular price counts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.config import load_settings
from tunesmith.tariff import FREE, Rates, rates_of, to_dollars, to_nanos

PRICES = st.decimals(0, 100, places=6)
COUNTS = st.integers(0, 10**9)


@given(PRICES, st.lists(COUNTS, max_size=20))
def test_sums_of_requests_are_the_price_of_the_sum(price: Decimal, counts: list[int]) -> None:
    rates = Rates(input=price, output=price, training=price)
    parts = sum(sum(rates.answer(num, num // 2, num)) for num in counts)
    assert to_dollars(parts) == price * 2 * sum(counts) / 1000
    assert rates.trained(sum(counts)) == sum(map(rates.trained, counts))


def test_cached_tokens_have_a_price_of_their_own() -> None:
    rates = Rates(input=Decimal("0.3"), cached_input=Decimal("0.1"), output=Decimal("0.6"))
    assert rates.answer(1000, 400, 100) == (180_000_000, 40_000_000, 60_000_000)
    assert Rates(input=Decimal("0.3")).answer(10, 10, 0) == (0, 3_000_000, 0)


def test_machine_time() -> None:
    assert Rates(machine_hour=Decimal("3.6")).machine(2.5) == to_nanos(Decimal("0.0025"))


def test_the_most_particular_row_counts() -> None:
    rows = {name: Rates(input=Decimal(n)) for n, name in enumerate(["*", "ft:*", "b", "ft:b"])}
    found = [rates_of(rows, base, tuned=tuned).input for base in "bc" for tuned in (False, True)]
    assert found == [2, 3, 0, 1]
    del rows["ft:b"]
    assert rates_of(rows, "b", tuned=True).input == 2
    assert rates_of({}, "b") is FREE


def test_prices_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_PRICES", '{"*": {"input": 0.00015, "training": 0.003}}')
    assert load_settings().prices["*"].input == Decimal("0.00015")


@pytest.mark.parametrize("wrong", [{"input": -1}, {"input": 0.0000001}, {"inptu": 1}])
def test_prices_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        load_settings(prices={"*": wrong})
