"""When a tuned model with a short prompt has paid for itself, at a hosted model's prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.cli.data_estimate import HostedCost
    from tunesmith.data.breakeven import BreakEven

BREAK_EVEN_HELP = "BEFORE,AFTER,ANSWER[,PER_DAY]: prompt tokens before and after, answer tokens."


def break_even_inputs(text: str | None) -> tuple[int, int, int, float | None] | None:
    if text is None:
        return None
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (3, 4) or any(part < 0 for part in parts):
        raise CommandFailed(f"--break-even {text}: give {BREAK_EVEN_HELP}")
    before, after, answer = (int(part) for part in parts[:3])
    return before, after, answer, parts[3] if len(parts) == 4 else None


def compared(cost: HostedCost, inputs: tuple[int, int, int, float | None]) -> BreakEven:
    from tunesmith.data.breakeven import Rate, break_even
    from tunesmith.data.prices import published

    price = published(cost.model)
    assert price is not None
    before, after, answer, per_day = inputs
    return break_even(
        cost.dollars,
        Rate(price.base_input, price.base_output),
        Rate(price.input, price.output),
        before,
        after,
        answer,
        per_day,
    )


def show_break_even(
    model: str,
    result: BreakEven,
    inputs: tuple[int, int, int, float | None] | None,
    console: Console,
) -> None:
    assert inputs is not None
    before, after = inputs[:2]
    say(console, f"\nBreak-even of {model}: a prompt of {before:,} tokens cut to {after:,}", "bold")
    say(
        console, f"  base model, long prompt    ${result.cost_before * 1000:.4f} per 1,000 requests"
    )
    say(console, f"  tuned model, short prompt  ${result.cost_after * 1000:.4f} per 1,000 requests")
    if result.num_requests is None:
        say(
            console,
            "  The tuned model never pays off at this price: it would with a prompt of "
            f"{result.longest_prompt:,} tokens or fewer.",
            "yellow",
        )
        return
    days = f", {result.num_days:,.1f} days" if result.num_days is not None else ""
    say(
        console,
        f"  The training is paid back after {result.num_requests:,} requests{days}.",
        "green",
    )
