"""`tunesmith data stats`: a file's lengths, labels and fields as histograms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.data_base import (
    BaseName,
    RowsMethod,
    Source,
    Target,
    TokenizerDir,
    require_file,
    require_method,
    target,
)
from tunesmith.cli.data_report import COUNTED
from tunesmith.cli.options import DataDir
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.data.stats import Stats

BAR, HALF_BAR = "\u2588", "\u258c"
BAR_CHARS = 40
SHOWN_LABELS = 20
SHOWN_SYSTEMS = 5


def stats(
    file: Source,
    base: BaseName = None,
    tokenizer: TokenizerDir = None,
    method: RowsMethod = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    data: DataDir = None,
) -> None:
    """Histograms: tokens, turns, answers, labels, system messages."""
    from tunesmith.data.summary import count, figures

    require_file(file)
    require_method(method)
    aim = target(base, tokenizer, data)
    found = count(file, aim.renderer, method, aim.max_tokens)
    if found.num_rows == 0:
        raise CommandFailed(f"{file.name} has no rows.")
    if json_:
        shown = {"tokenizer": aim.name, **figures(found)}
        print(json.dumps(shown, ensure_ascii=False, indent=2))
    else:
        show_stats(found, aim, screen())


def show_stats(found: Stats, aim: Target, console: Console) -> None:
    from tunesmith.data.stats import balance

    total = sum(found.tokens)
    share = found.trained / total if total else 0
    say(console, f"{found.num_rows:,} rows, {total:,} tokens for {aim.name}, ", "bold")
    say(console, f"{found.trained:,} of them trained ({share:.0%}).")
    for kind in found.kinds:
        if kind in COUNTED:
            say(console, COUNTED[kind], "dim")
    say(console)
    bars("tokens a row", found.tokens, console)
    bars("user and assistant messages a row", found.turns, console)
    pairs = bool(found.rejected_chars)
    title = "characters a preferred answer" if pairs else "characters an answer"
    bars(title, found.answer_chars, console)
    bars("characters a rejected answer", found.rejected_chars, console)
    if found.labels:
        even = balance(found.labels.values())
        say(console, f"labels: {len(found.labels)}, balance {even:.2f} (1 is even)", "bold")
        counts = found.labels.most_common(SHOWN_LABELS)
        draw([(label, number) for label, number in counts], console)
    if found.systems:
        say(console, f"system messages: {len(found.systems)} different", "bold")
        for text, number in found.systems.most_common(SHOWN_SYSTEMS):
            short = " ".join(text.split())
            say(console, f"  {number:>7,}  {short[:90]}{'...' if len(short) > 90 else ''}")
        say(console)
    roles = ", ".join(f"{number:,} {role}" for role, number in found.roles.most_common())
    if roles:
        say(console, f"messages: {roles}")
    if found.fields:
        named = ", ".join(f"{number:,} {name}" for name, number in found.fields.most_common(12))
        say(console, f"fields: {named}")
    if found.num_with_tools:
        say(console, f"rows with tools: {found.num_with_tools:,}")
    if found.num_not_rendered:
        text = f"{found.num_not_rendered:,} rows cannot be rendered for {aim.name}"
        say(console, f"{text}: tunesmith data check", "yellow")


def bars(title: str, values: Any, console: Console) -> None:
    from tunesmith.data.figures import Distribution
    from tunesmith.data.stats import histogram

    spread = Distribution.of(values)
    if spread is None or spread.max == 0:
        return
    say(console, title, "bold")
    rows = [
        (f"{each.low:,}" if each.low == each.high else f"{each.low:,} to {each.high:,}", each.count)
        for each in histogram(values)
    ]
    draw(rows, console)
    say(
        console,
        f"  mean {spread.mean:,.1f}, median {spread.median:,.0f}, 10 % below {spread.p10:,.0f}, "
        f"90 % below {spread.p90:,.0f}, longest {spread.max:,}\n",
        "dim",
    )


def draw(rows: list[tuple[str, int]], console: Console) -> None:
    from rich.text import Text

    most = max(count for _, count in rows)
    width = min(28, max(len(name) for name, _ in rows))
    for name, count in rows:
        length = 2 * BAR_CHARS * count / most if most else 0
        bar = BAR * int(length // 2) + (HALF_BAR if count and length % 2 >= 1 else "")
        bar = bar or (HALF_BAR if count else "")
        label = name if len(name) <= width else name[: width - 3] + "..."
        console.print(
            Text.assemble(f"  {label:>{width}}  ", (f"{bar:<{BAR_CHARS}}", "cyan"), f" {count:,}")
        )
    console.print()
