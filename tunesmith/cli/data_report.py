"""A report on a data file as it reads in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.cli.data_base import Target
from tunesmith.cli.screen import say

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.data.figures import Distribution, Figures
    from tunesmith.data.findings import Finding
    from tunesmith.data.report import Report

COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}
SHOWN_ROWS = 6
SHOWN_TRUNCATED = 10
# Of a file that is a table or an array, the notebook would say that all is missing.
CHAT_KINDS = ("chat", "unknown", "pretty_printed")
COUNTED = {
    "preference": "A pair counts its prompt once and both answers; both answers are trained.",
    "reinforcement": "A row counts its prompt, up to where the model begins; answers are sampled.",
    "evals": "An eval's prompt is made by its template; counted are the texts of the items.",
    "completions": "Prompt and completion as plain text, without a template.",
}
DISTRIBUTIONS = (
    "num_messages_per_example",
    "num_total_tokens_per_example",
    "num_assistant_tokens_per_example",
)


def show(found: Report, aim: Target, strict: bool, console: Console) -> None:
    """Findings, figures, tokens, what is too long, and the verdict."""
    for each in (found, found.validation):
        if each is None:
            continue
        say(console, f"{each.path.name}: {each.num_rows:,} rows, {each.kind}\n", "bold")
        if each.findings:
            show_findings(each.findings, console)
        else:
            say(console, "No findings.\n", "green")
    if found.notebook is not None and found.kind in CHAT_KINDS:
        show_figures(found.notebook, console)
    show_tokens(found, aim, console)
    show_truncation(found, aim, console)
    show_verdict(found, strict, console)


def show_findings(found: Sequence[Finding], console: Console) -> None:
    """A block for each finding: what and where, what it does to training, what to do."""
    from rich.padding import Padding
    from rich.text import Text

    for each in found:
        head = Text.assemble(
            (f"{each.severity:<8}", COLOURS[each.severity]),
            (each.code, "bold"),
            ("  " + row_list(each) if each.rows else "", "dim"),
        )
        console.print(head, soft_wrap=True)
        for label, text in (("", each.message), ("effect  ", each.effect), ("fix     ", each.fix)):
            console.print(Padding(Text.assemble((label, "dim"), text), (0, 0, 0, 8)))
        console.print()


def row_list(found: Finding) -> str:
    """The rows, with their lines where these differ."""
    first, last = found.rows[0], found.rows[-1]
    if last - first + 1 == len(found.rows) > 2:
        lines = f" (lines {found.lines[0]:,} to {found.lines[-1]:,})"
        moved = found.rows != found.lines
        return f"rows {first:,} to {last:,}{lines if moved else ''}"
    noun = "row" if len(found.rows) == 1 else "rows"
    places = [
        f"{row:,}" if row == line else f"{row:,} (line {line:,})"
        for row, line in zip(found.rows, found.lines, strict=False)
    ][:SHOWN_ROWS]
    more = f" and {len(found.rows) - SHOWN_ROWS:,} more" if len(found.rows) > SHOWN_ROWS else ""
    return f"{noun} {', '.join(places)}{more}"


def show_figures(figures: Figures, console: Console) -> None:
    """What OpenAI's notebook prints, under its names."""
    from rich.table import Table

    say(console, "Figures of OpenAI's data preparation notebook", "bold")
    say(console, figures.verdict, "red" if figures.errors else "green")
    for name, number in figures.errors.items():
        fine = figures.valid_today.get(name, 0)
        note = f"  ({fine:,} of them are valid today; the notebook is from 2023)" if fine else ""
        say(console, f"  {name}: {number:,}{note}")
    say(console, f"Num examples missing system message: {figures.num_missing_system:,}")
    say(console, f"Num examples missing user message: {figures.num_missing_user:,}")
    table = Table(
        "Distribution of", "min / max", "mean / median", "p10 / p90", box=None, pad_edge=False
    )
    for name in DISTRIBUTIONS:
        values: Distribution | None = getattr(figures, name)
        if values is not None:
            table.add_row(
                name,
                f"{values.min:,} / {values.max:,}",
                f"{values.mean:,.1f} / {values.median:,.1f}",
                f"{values.p10:,.1f} / {values.p90:,.1f}",
            )
    if table.rows:
        console.print(table)
        say(
            console,
            'p10 / p90 is what the notebook prints as "p5 / p95": it computes the 10th and the '
            "90th percentile.",
            "dim",
        )
    say(console)


def show_tokens(found: Report, aim: Target, console: Console) -> None:
    from rich.table import Table

    table = Table("tokens", "in all", "trained", box=None, pad_edge=False)
    if found.tokens is not None and found.tokens["total"]:
        total, trained = found.tokens["total"], found.tokens["trained"]
        table.add_row(f"{aim.name} (a job here)", f"{total:,}", f"{trained:,}")
    for name, number in (found.openai_tokens or {}).items():
        if number:
            table.add_row(f"{name} (OpenAI)", f"{number:,}", "")
    if table.rows:
        console.print(table)
        if found.kind in COUNTED:
            say(console, COUNTED[found.kind], "dim")
        say(console)


def show_truncation(found: Report, aim: Target, console: Console) -> None:
    """Row by row what a service that cuts would lose; here such rows are refused."""
    rows = found.tokens["truncated"] if found.tokens else []
    if not rows or found.tokens is None:
        return
    limit = found.tokens["max_tokens"]
    say(console, f"Longer than the {limit:,} tokens of {aim.name}", "bold")
    for row in rows[:SHOWN_TRUNCATED]:
        text = f"  row {row['row']:,}: {row['tokens']:,} tokens; a cut would lose {row['lost']:,}"
        say(console, f"{text}, {row['lost_trained']:,} of them trained")
    if len(rows) > SHOWN_TRUNCATED:
        say(console, f"  and {len(rows) - SHOWN_TRUNCATED:,} more")
    say(console)


def show_verdict(found: Report, strict: bool, console: Console) -> None:
    counts = {
        severity: sum(each.severity == severity for each in found.all_findings)
        for severity in COLOURS
    }
    text = ", ".join(
        f"{number} {name}{'s' * (number != 1)}" for name, number in counts.items() if number
    )
    if counts["error"]:
        say(console, f"Blocked: {text}. A job with this file fails.", "bold red")
    elif found.exit_code(strict):
        say(console, f"Not clean: {text}.", "bold yellow")
    else:
        say(console, f"Ready{': ' + text if text else ''}.", "bold green")
