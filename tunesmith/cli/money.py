"""Amounts of money in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

MIN_DECIMALS = 4
# Nano-dollars, in which all is booked.
MAX_DECIMALS = 9


def decimals(amounts: Iterable[Decimal]) -> int:
    """How many the amounts of a column get, so that the smallest still shows two digits."""
    needed = [1 - amount.adjusted() for amount in amounts if amount]
    return min(max(MIN_DECIMALS, *needed, 0), MAX_DECIMALS)
