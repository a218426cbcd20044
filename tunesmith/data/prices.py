"""What tuning and using a model costs: OpenAI's published table, and arithmetic to the cent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

SOURCE = "OpenAI's pricing pages, as last published for models that can be tuned"
DATE = "2025-08"
TUTORIAL_DATE = "2023-11"


@dataclass(frozen=True)
class Price:
    """US dollars per 1,000 tokens."""

    training: Decimal
    """For each token of the file and epoch."""
    input: Decimal
    """The tuned model's prompt tokens."""
    output: Decimal
    """The tuned model's answer tokens."""
    base_input: Decimal
    """The same of the model before tuning."""
    base_output: Decimal
    since: str = DATE


def _price(
    training: str, tuned_in: str, tuned_out: str, base_in: str, base_out: str, since: str = DATE
) -> Price:
    per_million = (training, tuned_in, tuned_out, base_in, base_out)
    train, *use = (Decimal(each) / 1000 for each in per_million)
    return Price(train, use[0], use[1], use[2], use[3], since)


# Training, tuned input, tuned output, base input, base output; dollars per million tokens.
PUBLISHED: Mapping[str, Price] = {
    "babbage-002": _price("0.4", "1.6", "1.6", "0.4", "0.4"),
    "davinci-002": _price("6", "12", "12", "2", "2"),
    "gpt-3.5-turbo": _price("8", "3", "6", "0.5", "1.5"),
    "gpt-4o-mini": _price("3", "0.3", "1.2", "0.15", "0.6"),
    "gpt-4o": _price("25", "3.75", "15", "2.5", "10"),
    "gpt-4.1-nano": _price("1.5", "0.2", "0.8", "0.1", "0.4"),
    "gpt-4.1-mini": _price("5", "0.8", "3.2", "0.4", "1.6"),
    "gpt-4.1": _price("25", "3", "12", "2", "8"),
    # As of the announcement of tuning, which most tutorials quote.
    "gpt-3.5-turbo-0613": _price("8", "12", "16", "1.5", "2", since=TUTORIAL_DATE),
}


def published(model: str) -> Price | None:
    """The price of a model by its name, dated ("gpt-4o-mini-2024-07-18") or tuned ("ft:...")."""
    name = model.removeprefix("ft:").split(":")[0]
    fitting = [start for start in PUBLISHED if name == start or name.startswith(start + "-")]
    return PUBLISHED[max(fitting, key=len)] if fitting else None


def training_cost(num_tokens: int, n_epochs: int, per_1k: Decimal) -> Decimal:
    """Dollars, to the cent: price / 1K x tokens in the file x epochs."""
    return to_cents(per_1k * num_tokens * n_epochs / 1000)


def to_cents(dollars: Decimal) -> Decimal:
    return dollars.quantize(Decimal("0.01"), ROUND_HALF_UP)
