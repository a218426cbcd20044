"""`tunesmith data fix`: repairs into a new file, with every change shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.data_base import Source, count, refuse_same, require_rows
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from tunesmith.data.repair import Change, Repaired

# Characters of a changed row that are shown around what changed, and of what changed.
CONTEXT_CHARS = 32
CHANGED_CHARS = 240


def fix(
    file: Source,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The repaired file.", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only these codes, commas between them.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, write nothing.")
    ] = False,
    show: Annotated[int, typer.Option(help="Most changed rows to show; 0 shows all.")] = 20,
) -> None:
    """Repair what is safe, and show every change."""
    from tunesmith.data.repair import Repaired, repair

    require_rows(file)
    codes = chosen(only)
    if dry_run == (out is not None):
        raise CommandFailed("Give either -o OUT for the repaired file or --dry-run.")
    if out is not None:
        refuse_same(file, out)
    console = screen()
    result = Repaired()
    num_changes = 0
    part = out.with_name(out.name + ".part") if out else None
    target = part.open("wb") if part else None
    try:
        for num_changes, change in enumerate(repair(file, target, codes, result), 1):
            if show == 0 or num_changes <= show:
                show_change(change, console)
    finally:
        if target:
            target.close()
    if show and num_changes > show:
        say(console, f"... and {num_changes - show:,} more changed rows (--show 0 shows all)\n")
    summarise(result, num_changes, console)
    if part and out:
        part.replace(out)
        say(console, f"\nWritten to {out}: {count(result.num_rows, 'row')}.", "bold")
        recheck(out, console)


def chosen(only: list[str] | None) -> frozenset[str]:
    from tunesmith.data.repair import DEFAULT, REPAIRS

    if only is None:
        return DEFAULT
    codes = frozenset(code.strip() for each in only for code in each.split(",") if code.strip())
    unknown = sorted(codes - REPAIRS.keys())
    if unknown or not codes:
        raise CommandFailed(
            f"--only {', '.join(unknown) or '(empty)'}: there is no such repair. "
            f"There are {', '.join(REPAIRS)}."
        )
    return codes


def show_change(change: Change, console: Console) -> None:
    """The row before and after, only what differs, with a little around it."""
    from rich.text import Text

    head = Text.assemble(
        ("line ", "dim"), (f"{change.line:,}", "bold"), "  ", ", ".join(change.codes)
    )
    console.print(head, soft_wrap=True)
    before = on_one_line(change.before)
    if before == change.after:
        lines = change.before.count("\n") + 1
        console.print(Text(f"  {lines} lines are now one\n", "dim"))
        return
    if change.after is None:
        console.print(excerpt("- ", before, 0, len(before), "red"), soft_wrap=True)
    else:
        start, end = differing(before, change.after)
        for mark, text, stop, style in (
            ("- ", before, len(before) - end, "red"),
            ("+ ", change.after, len(change.after) - end, "green"),
        ):
            console.print(excerpt(mark, text, start, stop, style), soft_wrap=True)
    console.print()


def on_one_line(text: str) -> str:
    """Without the line breaks of a pretty-printed object, so that only real changes differ."""
    return re.sub(r"\s*\n\s*", "", re.sub(r"([,:])[ \t]*\n\s*", r"\1 ", text))


def differing(one: str, other: str) -> tuple[int, int]:
    """(characters that are the same at the beginning, at the end) of two texts."""
    shorter = min(len(one), len(other))
    start = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    end = next((i for i in range(shorter - start) if one[-1 - i] != other[-1 - i]), shorter - start)
    return start, end


def excerpt(mark: str, text: str, start: int, stop: int, style: str) -> Text:
    from rich.text import Text

    before, changed, after = text[:start], text[start:stop], text[stop:]
    left = ("..." if len(before) > CONTEXT_CHARS else "") + before[-CONTEXT_CHARS:]
    right = after[:CONTEXT_CHARS] + ("..." if len(after) > CONTEXT_CHARS else "")
    if len(changed) > CHANGED_CHARS:
        changed = f"{changed[: CHANGED_CHARS // 2]} ... {changed[-CHANGED_CHARS // 2 :]}"
    return Text.assemble("  ", (mark, style), (left, "dim"), (changed, style), (right, "dim"))


def summarise(result: Repaired, num_changes: int, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from tunesmith.data.repair import REPAIRS

    if not result.codes:
        say(console, "Nothing to repair.", "green")
    else:
        table = Table("repair", "times", "what it does", "what is lost", box=None, pad_edge=False)
        for code, number in sorted(result.codes.items(), key=lambda item: -item[1]):
            loses = Text(
                REPAIRS[code].loses or "nothing", "yellow" if REPAIRS[code].loses else "dim"
            )
            table.add_row(Text(code, "bold"), f"{number:,}", REPAIRS[code].does, loses)
        console.print(table)
    say(
        console,
        f"\n{count(num_changes, 'row')} changed, {result.num_left_out:,} left out, "
        f"{result.num_rows:,} kept in all.",
    )
    if result.num_unreadable:
        say(
            console,
            f"{count(result.num_unreadable, 'line')} could not be read and stayed as they were; "
            "the check names them.",
            "red",
        )


def recheck(out: Path, console: Console) -> None:
    """What a check of the new file finds."""
    from tunesmith.cli.data_report import show_findings
    from tunesmith.data.report import report

    found = report(out, method=None)
    if not found.findings:
        say(console, "Checked again: no findings.", "green")
        return
    say(console, "Checked again:")
    show_findings(found.findings, console)
