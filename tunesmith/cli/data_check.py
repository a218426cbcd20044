"""`tunesmith data check`: what is wrong with a file, what that does, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.data_base import BaseName, Target, TokenizerDir, require_file, target
from tunesmith.cli.options import DataDir
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.data.figures import Distribution, Figures
    from tunesmith.data.findings import Finding
    from tunesmith.data.report import Report

METHODS = ("supervised", "dpo", "reinforcement", "evals")
COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}
SHOWN_ROWS = 6
SHOWN_TRUNCATED = 10
# Counting with OpenAI's encodings takes about a minute for each 100 MB.
MAX_OPENAI_BYTES = 64 << 20
ENCODINGS = ("cl100k_base", "o200k_base")
MAX_JSON_ROWS = 1000


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    valid: Annotated[
        Path | None, typer.Option(help="Validation file, checked with it.", show_default=False)
    ] = None,
    base: BaseName = None,
    tokenizer: TokenizerDir = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "supervised",
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Longest example (default: the base's context).", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail the check, too.")] = False,
    openai: Annotated[
        bool | None,
        typer.Option(
            "--openai/--no-openai",
            help="Count with OpenAI's encodings (default: for files up to 64 MB).",
            show_default=False,
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    sarif: Annotated[
        Path | None, typer.Option(help="Write SARIF for CI here.", show_default=False)
    ] = None,
    data: DataDir = None,
) -> None:
    """Findings, figures and token counts of a file; exit code 1 if a job would refuse it."""
    for path in (file, valid):
        if path is not None:
            require_file(path)
    if method not in METHODS:
        raise CommandFailed(f"--method {method}: give one of {', '.join(METHODS)}.")
    aim = target(base, tokenizer, data)
    console = screen()
    found = checked(file, valid, aim, method, max_tokens, show=not json_)
    counted = openai if openai is not None else file.stat().st_size <= MAX_OPENAI_BYTES
    figures = count_figures(file, with_tokens=counted)
    if sarif is not None:
        sarif.write_text(json.dumps(found.to_sarif(), indent=2) + "\n", encoding="utf-8")
    if json_:
        print(json.dumps(as_json(found, figures), ensure_ascii=False, indent=2))
    else:
        show(found, figures, aim, strict, console)
    raise typer.Exit(found.exit_code(strict))


def checked(
    file: Path, valid: Path | None, aim: Target, method: str, max_tokens: int | None, show: bool
) -> Report:
    """The report, with a progress bar on stderr while it is made."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from tunesmith.data.report import report

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not show
    ) as progress:
        task = progress.add_task("Checking", total=file.stat().st_size)
        return report(
            file,
            valid=valid,
            renderer=aim.renderer,
            method=method,
            max_tokens=max_tokens or aim.max_tokens,
            progress=lambda done, size: progress.update(task, completed=done, total=size),
        )


def count_figures(file: Path, with_tokens: bool) -> list[Figures]:
    """The notebook's figures with each of OpenAI's encodings; without tokens, once."""
    from tunesmith.data.figures import FigureCounter
    from tunesmith.data.openai_tokens import load_encoding
    from tunesmith.data.raw import read_raw

    encodings = [load_encoding(name) for name in ENCODINGS] if with_tokens else [None]
    counters = [FigureCounter(encoding) for encoding in encodings]
    for row in read_raw(file):
        if row.value is not None:
            for counter in counters:
                counter.add(row.value)
    return [counter.figures() for counter in counters]


def as_json(found: Report, figures: list[Figures]) -> dict[str, Any]:
    notebook = asdict(figures[0])
    openai = {each.encoding: each.num_tokens for each in figures if each.encoding}
    return {**found.to_json(MAX_JSON_ROWS), "notebook": notebook, "openai_tokens": openai}


def show(
    found: Report, figures: list[Figures], aim: Target, strict: bool, console: Console
) -> None:
    for each in (found, found.validation):
        if each is None:
            continue
        say(console, f"{each.path.name}: {each.num_rows:,} rows, {each.kind}\n", "bold")
        if each.findings:
            show_findings(each.findings, console)
        else:
            say(console, "No findings.\n", "green")
    if found.kind in CHAT_KINDS:
        show_figures(figures[0], console)
    show_tokens(found, figures, aim, console)
    show_truncation(found, aim, console)
    show_verdict(found, strict, console)
    show_next(found, console)


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


# The notebook knows chat rows only; of other kinds it would say that all is missing.
CHAT_KINDS = ("chat", "reinforcement", "unknown", "pretty_printed")
DISTRIBUTIONS = (
    "num_messages_per_example",
    "num_total_tokens_per_example",
    "num_assistant_tokens_per_example",
)


def show_tokens(found: Report, figures: list[Figures], aim: Target, console: Console) -> None:
    from rich.table import Table

    table = Table("tokens", "in all", "trained", box=None, pad_edge=False)
    if found.tokens is not None and found.tokens["total"]:
        total, trained = found.tokens["total"], found.tokens["trained"]
        table.add_row(f"{aim.name} (a job here)", f"{total:,}", f"{trained:,}")
    for each in figures:
        if each.num_tokens:
            table.add_row(f"{each.encoding} (OpenAI)", f"{each.num_tokens:,}", "")
    if table.rows:
        console.print(table)
        say(console)


def show_truncation(found: Report, aim: Target, console: Console) -> None:
    """Row by row what a service that cuts would lose; here such rows are refused."""
    rows = found.tokens["truncated"] if found.tokens else []
    if not rows or found.tokens is None:
        return
    limit = found.tokens["max_tokens"]
    say(console, f"Longer than the {limit:,} tokens of {aim.name}", "bold")
    for row in rows[:SHOWN_TRUNCATED]:
        say(
            console,
            f"  row {row['row']:,}: {row['tokens']:,} tokens; a cut would lose {row['lost']:,} "
            "trained ones",
        )
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


def show_next(found: Report, console: Console) -> None:
    """What `data fix` would make of the file, where it is worth it."""
    from tunesmith.data.repair import DEFAULT, READING_CODES, Repaired, repair

    codes = {each.code for each in found.findings if each.repairable}
    if codes & DEFAULT:
        say(console, f"Repair what is safe: tunesmith data fix {found.path} -o FIXED.jsonl")
    if codes & set(READING_CODES) and found.path.stat().st_size <= MAX_OPENAI_BYTES:
        result = Repaired()
        for _ in repair(found.path, None, result=result):
            pass
        left = f"; {result.num_unreadable:,} lines stay unreadable" if result.num_unreadable else ""
        rows = "1 row" if result.num_rows == 1 else f"{result.num_rows:,} rows"
        say(console, f"It reads {rows} from this file{left}.")
