"""What things cost here: the price table of the settings, and exact money.

Money is whole nano-dollars. A price per 1,000 tokens with up to six decimals makes a whole number
of them for each token, so that sums are exact in whatever order they are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NANOS = 10**9
# The row for every base that has none of its own.
ANY = "*"
# Before the name of a base: what is tuned on it.
TUNED = "ft:"

Price = Annotated[Decimal, Field(ge=0, decimal_places=6, le=1_000_000)]


class Rates(BaseModel):
    """US dollars. Tokens are priced by the 1,000."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Price = Decimal(0)
    cached_input: Price | None = None
    """Prompt tokens that were found in the cache; None = as the others."""
    output: Price = Decimal(0)
    training: Price = Decimal(0)
    machine_hour: Price = Decimal(0)
    """For each hour that a job trains, besides its tokens."""

    def answer(self, num_prompt: int, num_cached: int, num_answer: int) -> tuple[int, int, int]:
        """Nano-dollars of the fresh prompt tokens, the cached ones, and the answer's."""
        cached = self.input if self.cached_input is None else self.cached_input
        return (
            (num_prompt - num_cached) * per_token(self.input),
            num_cached * per_token(cached),
            num_answer * per_token(self.output),
        )

    def trained(self, num_tokens: int) -> int:
        return num_tokens * per_token(self.training)

    def machine(self, seconds: float) -> int:
        return to_nanos(self.machine_hour * Decimal(str(seconds)) / 3600)


FREE = Rates()
Tariff = Mapping[str, Rates]


def rates_of(tariff: Tariff, base: str, *, tuned: bool = False) -> Rates:
    """The most particular row: "ft:BASE" for what is tuned on it, BASE, "ft:*", "*"."""
    names = [TUNED + base, base, TUNED + ANY, ANY] if tuned else [base, ANY]
    return next((tariff[name] for name in names if name in tariff), FREE)


def per_token(price: Decimal) -> int:
    return int(price * NANOS / 1000)


def to_nanos(dollars: Decimal) -> int:
    return int((dollars * NANOS).to_integral_value(ROUND_HALF_UP))


def to_dollars(nanos: int) -> Decimal:
    return Decimal(nanos) / NANOS
