"""After how many requests a tuned model with a short prompt is cheaper than the base with a long
one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Rate:
    """US dollars per 1,000 tokens in use."""

    input: Decimal
    output: Decimal

    def cost(self, prompt_tokens: int, answer_tokens: int) -> Decimal:
        return (self.input * prompt_tokens + self.output * answer_tokens) / 1000


@dataclass(frozen=True)
class BreakEven:
    cost_before: Decimal
    """Dollars a request: the base model with the long prompt."""
    cost_after: Decimal
    """Dollars a request: the tuned model with the short prompt."""
    num_requests: int | None
    """Requests after which the training has paid for itself; None: never."""
    num_days: float | None
    """The same in days; None if never, or if the requests per day are not known."""
    longest_prompt: int
    """The longest prompt, in tokens, with which the tuned model still costs no more a request."""


def break_even(
    training_cost: Decimal,
    base: Rate,
    tuned: Rate,
    prompt_before: int,
    prompt_after: int,
    answer_tokens: int,
    requests_per_day: float | None = None,
) -> BreakEven:
    """The comparison for prompts of these lengths, in tokens, and answers that stay the same."""
    before = base.cost(prompt_before, answer_tokens)
    after = tuned.cost(prompt_after, answer_tokens)
    left = (before - tuned.cost(0, answer_tokens)) * 1000
    longest = max(0, int(left / tuned.input)) if tuned.input else prompt_before
    if before <= after:
        return BreakEven(before, after, None, None, longest)
    num_requests = math.ceil(training_cost / (before - after))
    days = num_requests / requests_per_day if requests_per_day else None
    return BreakEven(before, after, num_requests, days, longest)
