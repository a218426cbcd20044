"""`tunesmith data check`: what is wrong with a file, what that does, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.data_base import (
    BaseName,
    Method,
    Target,
    TokenizerDir,
    reading,
    require_file,
    require_method,
    target,
)
from tunesmith.cli.data_moderation import moderated
from tunesmith.cli.options import DataDir
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.data.report import Report

MAX_JSON_ROWS = 1000
# Of a larger file, what a repair would read is not tried out.
MAX_REPAIRED_BYTES = 64 << 20


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    valid: Annotated[
        Path | None, typer.Option(help="Validation file, checked with it.", show_default=False)
    ] = None,
    base: BaseName = None,
    tokenizer: TokenizerDir = None,
    method: Method = "supervised",
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Longest example (default: the base's context).", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail the check, too.")] = False,
    openai: Annotated[
        bool, typer.Option("--openai/--no-openai", help="Count with OpenAI's encodings, too.")
    ] = True,
    moderation: Annotated[
        bool, typer.Option("--moderation", help="Judge the rows as a job would; slower.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    sarif: Annotated[
        Path | None, typer.Option(help="Write SARIF for CI here.", show_default=False)
    ] = None,
    data: DataDir = None,
) -> None:
    """Findings, figures and token counts of a file; exit code 1 if a job would refuse it."""
    from tunesmith.cli.data_report import show
    from tunesmith.data.sarif import to_sarif

    for path in (file, valid):
        if path is not None:
            require_file(path)
    require_method(method)
    aim = target(base, tokenizer, data)
    console = screen()
    found = checked(file, valid, aim, method, max_tokens, openai, show=not json_)
    if sarif is not None:
        sarif.write_text(json.dumps(to_sarif(found), indent=2) + "\n", encoding="utf-8")
    judged = [moderated(path, show=not json_) for path in (file, valid) if path and moderation]
    if json_:
        told = found.to_json(MAX_JSON_ROWS)
        if moderation:
            told["moderation"] = [each.to_json() for each in judged]
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        show(found, aim, strict, console)
        for each in judged:
            each.show(console)
        show_next(found, console)
    raise typer.Exit(found.exit_code(strict) or int(any(each.fails for each in judged)))


def checked(
    file: Path,
    valid: Path | None,
    aim: Target,
    method: str,
    max_tokens: int | None,
    openai: bool,
    show: bool,
) -> Report:
    """The report, with a progress bar on stderr while it is made."""
    from tunesmith.data.openai_tokens import ENCODINGS
    from tunesmith.data.report import report

    with reading(file, "Checking", show) as progress:
        return report(
            file,
            valid=valid,
            renderer=aim.renderer,
            method=method,
            max_tokens=max_tokens or aim.max_tokens,
            progress=progress,
            encodings=tuple(ENCODINGS) if openai else (),
        )


def show_next(found: Report, console: Console) -> None:
    """What `data fix` would make of the file, where it is worth it."""
    from tunesmith.data.repair import DEFAULT, READING_CODES, Repaired, repair

    codes = {each.code for each in found.findings if each.repairable}
    if codes & DEFAULT:
        say(console, f"Repair what is safe: tunesmith data fix {found.path} -o FIXED.jsonl")
    if codes & set(READING_CODES) and found.path.stat().st_size <= MAX_REPAIRED_BYTES:
        result = Repaired()
        for _ in repair(found.path, None, result=result):
            pass
        left = f"; {result.num_unreadable:,} lines stay unreadable" if result.num_unreadable else ""
        rows = "1 row" if result.num_rows == 1 else f"{result.num_rows:,} rows"
        say(console, f"It reads {rows} from this file{left}.")
