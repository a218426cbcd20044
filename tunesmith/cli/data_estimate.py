"""`tunesmith data estimate`: tokens, steps, time, memory and money before a job is created."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.data_base import (
    BaseName,
    RowsMethod,
    Target,
    TokenizerDir,
    reading,
    require_file,
    require_method,
    target,
)
from tunesmith.cli.data_break_even import (
    BREAK_EVEN_HELP,
    break_even_inputs,
    compared,
    show_break_even,
)
from tunesmith.cli.data_report import COUNTED
from tunesmith.cli.options import DataDir, settings
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen
from tunesmith.data.estimate import duration

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.bases import BaseInfo
    from tunesmith.config import Settings
    from tunesmith.data.breakeven import BreakEven
    from tunesmith.data.forecast import Forecast
    from tunesmith.data.prices import Price
    from tunesmith.jobs.rate import Rate

DEFAULT_MODELS = ("gpt-4o-mini", "gpt-3.5-turbo", "gpt-4.1-mini")
Number = Annotated[str, typer.Option(help="A number, or auto.")]


@dataclass(frozen=True)
class HostedPrice:
    model: str
    encoding: str
    price: Price


@dataclass(frozen=True)
class HostedCost:
    """What OpenAI's price table says for this file."""

    model: str
    encoding: str
    num_tokens: int
    """Of the file, as OpenAI counts."""
    dollars: Decimal
    since: str


def estimate(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    base: BaseName = None,
    tokenizer: TokenizerDir = None,
    epochs: Number = "auto",
    batch_size: Number = "auto",
    method: RowsMethod = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="Hosted model to compare with; repeatable.", show_default=False
        ),
    ] = None,
    break_even: Annotated[
        str | None, typer.Option("--break-even", help=BREAK_EVEN_HELP, show_default=False)
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Train a few seconds to learn the speed, if no job tells.")
    ] = True,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    data: DataDir = None,
) -> None:
    """Tokens, steps, hyperparameters, time, memory and price of tuning on a file."""
    from tunesmith.cli.tune import number
    from tunesmith.data.forecast import forecast

    require_file(file)
    require_method(method)
    aim = target(base, tokenizer, data)
    found = settings(data=data)
    requested = {
        "n_epochs": number("--epochs", epochs, int),
        "batch_size": number("--batch-size", batch_size, int),
    }
    inputs = break_even_inputs(break_even)
    prices = [hosted_price(name) for name in model or DEFAULT_MODELS]
    with reading(file, "Counting", show=not json_) as progress:
        wanted = forecast(
            file,
            aim.renderer,
            aim.max_tokens,
            requested,
            method=method,
            encodings=tuple(sorted({price.encoding for price in prices})),
            progress=progress,
        )
    if wanted.num_examples == 0:
        raise CommandFailed(f"{file.name} has no rows.")
    if wanted.kind == "evals":
        raise CommandFailed(
            f"{file.name} has eval rows; nothing is trained on them. Their tokens: "
            f"tunesmith data stats {file}"
        )
    rate = measured(aim, wanted, found) if measure and wanted.kind == "chat" else None
    hosted = [] if wanted.kind == "reinforcement" else [cost(price, wanted) for price in prices]
    after = [(cost.model, compared(cost, inputs)) for cost in hosted if inputs is not None]
    if json_:
        print(json.dumps(as_json(aim, wanted, rate, found, hosted, after), indent=2))
        return
    show(aim, wanted, rate, found, hosted, screen())
    for name, result in after:
        show_break_even(name, result, inputs, screen())


def measured(aim: Target, wanted: Forecast, found: Settings) -> Rate | None:
    from tunesmith.jobs.rate import past_rate, rehearsed_rate

    # Of chats alone the time is asked.
    kind = wanted.hyperparameters.finetuning_type
    per_step = wanted.trained_tokens / wanted.num_steps
    rate = past_rate(found.jobs_dir, aim.directory, "supervised", kind, per_step)
    if rate is not None:
        return rate
    base = describe(aim)
    if base is None:
        return None
    return rehearsed_rate(base, wanted.kept, wanted, found.device, found.train_threads)


def describe(aim: Target) -> BaseInfo | None:
    """The base that a target is; None for a directory with a tokenizer only."""
    from tunesmith.bases import describe as read_base
    from tunesmith.errors import BaseModelError
    from tunesmith.ids import SystemClock

    try:
        return read_base(aim.directory, aim.name, SystemClock())
    except BaseModelError:
        return None


def hosted_price(model: str) -> HostedPrice:
    from tunesmith.data import prices
    from tunesmith.data.openai_tokens import encoding_of

    price, encoding = prices.published(model), encoding_of(model)
    if price is None or encoding is None:
        known = ", ".join(prices.PUBLISHED)
        raise CommandFailed(f"--model {model}: no published price. There are prices of {known}.")
    return HostedPrice(model, encoding, price)


def cost(hosted: HostedPrice, wanted: Forecast) -> HostedCost:
    from tunesmith.data.prices import training_cost

    num = wanted.openai_tokens[hosted.encoding]
    dollars = training_cost(num, wanted.hyperparameters.n_epochs, hosted.price.training)
    return HostedCost(hosted.model, hosted.encoding, num, dollars, hosted.price.since)


def seconds(wanted: Forecast, rate: Rate) -> float:
    return wanted.trained_tokens / rate.tokens_per_s


def show(
    aim: Target,
    wanted: Forecast,
    rate: Rate | None,
    found: Settings,
    hosted: list[HostedCost],
    console: Console,
) -> None:
    from rich.table import Table

    from tunesmith.data.prices import DATE, SOURCE
    from tunesmith.jobs.rate import local_costs

    hyper = wanted.hyperparameters
    table = Table.grid(padding=(0, 2))
    is_sampled = wanted.kind == "reinforcement"
    table.add_row("prompts" if is_sampled else "examples", f"{wanted.num_examples:,}")
    table.add_row(
        "prompt tokens" if is_sampled else "tokens of one epoch", f"{wanted.num_tokens:,}"
    )
    if not is_sampled:
        table.add_row("  of them learned", f"{wanted.num_supervised:,}")
    table.add_row("epochs", f"{hyper.n_epochs}")
    if not is_sampled:
        table.add_row("trained tokens", f"{wanted.trained_tokens:,}")
    table.add_row("batch size", f"{hyper.batch_size}")
    table.add_row("steps", f"{wanted.num_steps:,}")
    table.add_row("learning rate multiplier", f"{hyper.learning_rate_multiplier:g}")
    table.add_row("longest example", f"{wanted.longest:,} of {limit(aim)} tokens")
    if wanted.kind != "chat":
        table.add_row("time here", f"unknown: measured for chat rows, not for {wanted.kind} rows")
    elif rate is None:
        table.add_row("time here", "unknown: no finished job and no measurement")
    else:
        table.add_row("time here", f"about {duration(seconds(wanted, rate))}")
        table.add_row("", f"{rate.tokens_per_s:,.0f} tokens a second, {rate.source}")
        if rate.peak_bytes:
            table.add_row("memory", f"about {rate.peak_bytes / 1e9:.1f} GB at the peak")
    costs = local_costs(
        found.prices, aim.name, wanted.trained_tokens, seconds(wanted, rate) if rate else None
    )
    for text, dollars in costs:
        table.add_row("price here", f"${dollars} {text}")
    say(console, f"Tuning {aim.name}", "bold")
    console.print(table)
    if wanted.num_too_long:
        say(console, f"{wanted.num_too_long:,} examples are too long; a job refuses them.", "red")
    if wanted.kind in COUNTED:
        say(console, COUNTED[wanted.kind], "dim")
    if is_sampled:
        say(
            console,
            "How many tokens are trained depends on the answers that the model samples; OpenAI "
            "bills such jobs by the hour.",
        )
        return
    say(console, f"\nThe same at OpenAI ({SOURCE}, {DATE})", "bold")
    prices = Table(
        "model", "encoding", "tokens of one epoch", "price", "as of", box=None, pad_edge=False
    )
    for cost in hosted:
        row = (cost.model, cost.encoding, f"{cost.num_tokens:,}", f"${cost.dollars}", cost.since)
        prices.add_row(*row)
    console.print(prices)


def limit(aim: Target) -> str:
    return "unknown" if aim.max_tokens is None else f"{aim.max_tokens:,}"


def as_json(
    aim: Target,
    wanted: Forecast,
    rate: Rate | None,
    found: Settings,
    hosted: list[HostedCost],
    after: list[tuple[str, BreakEven]],
) -> dict[str, Any]:
    from tunesmith.jobs.rate import local_costs

    costs = local_costs(
        found.prices, aim.name, wanted.trained_tokens, seconds(wanted, rate) if rate else None
    )
    return {
        "base": aim.name,
        "kind": wanted.kind,
        "num_examples": wanted.num_examples,
        "num_tokens": wanted.num_tokens,
        "num_supervised_tokens": wanted.num_supervised,
        "trained_tokens": wanted.trained_tokens,
        "num_steps": wanted.num_steps,
        "hyperparameters": asdict(wanted.hyperparameters),
        "longest": wanted.longest,
        "num_too_long": wanted.num_too_long,
        "seconds": seconds(wanted, rate) if rate else None,
        "tokens_per_s": rate.tokens_per_s if rate else None,
        "rate_source": rate.source if rate else None,
        "peak_bytes": rate.peak_bytes if rate else None,
        "local_usd": {text: str(dollars) for text, dollars in costs},
        "openai": [{**asdict(cost), "dollars": str(cost.dollars)} for cost in hosted],
        "break_even": [
            {
                "model": name,
                "usd_per_request_before": str(result.cost_before),
                "usd_per_request_after": str(result.cost_after),
                "num_requests": result.num_requests,
                "num_days": result.num_days,
                "longest_prompt": result.longest_prompt,
            }
            for name, result in after
        ],
    }
