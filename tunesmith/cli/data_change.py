"""`tunesmith data fix`, `convert` and `split`: new files from a file, never in place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.data_base import require_file
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from tunesmith.data.convert import Converted
    from tunesmith.data.repair import Change, Repaired

# Characters of a changed row that are shown around what changed, and of what changed.
CONTEXT_CHARS = 32
CHANGED_CHARS = 240
Source = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


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

    require_file(file)
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


def refuse_same(file: Path, out: Path) -> None:
    if out.exists() and out.samefile(file):
        raise CommandFailed(f"{out} is the file itself. Give another name; nothing is lost then.")


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
    from tunesmith.cli.data_check import show_findings
    from tunesmith.data.report import report

    found = report(out)
    if not found.findings:
        say(console, "Checked again: no findings.", "green")
        return
    say(console, "Checked again:")
    show_findings(found.findings, console)


def convert(
    file: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="The new file.", show_default=False)],
    read_as: Annotated[
        str | None,
        typer.Option(
            "--from", help="What the file holds (found out by default).", show_default=False
        ),
    ] = None,
    write_as: Annotated[
        str | None,
        typer.Option("--to", help="What to write (default: chat rows).", show_default=False),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="System message to add; when writing, to leave out.", show_default=False),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Which column of a table is what: prompt=NAME, completion=NAME, system=NAME.",
            show_default=False,
        ),
    ] = None,
    strip: Annotated[
        bool, typer.Option("--strip", help="Take blanks off both ends of prompts and answers.")
    ] = False,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out rows that do not fit, and tell them.")
    ] = False,
) -> None:
    """Turn CSV, Parquet, JSON, ShareGPT, Alpaca, ... into chat rows, and back."""
    from tunesmith.data.convert import READABLE, WRITABLE
    from tunesmith.data.convert import convert as run
    from tunesmith.data.shapes import Options
    from tunesmith.data.tables import SUFFIXES

    require_file(file)
    refuse_same(file, out)
    require_one("--from", read_as, READABLE)
    require_one("--to", write_as, WRITABLE)
    container = SUFFIXES.get(out.suffix.lower())
    if container is None:
        raise CommandFailed(f"{out.name}: end the name in one of {', '.join(SUFFIXES)}.")
    options = Options(system, columns(column), strip)
    done = run(file, out, container, read_as=read_as, write_as=write_as, options=options, skip=skip)
    told(done, out, screen())


def require_one(option: str, name: str | None, names: tuple[str, ...]) -> None:
    if name is not None and name not in names:
        raise CommandFailed(f"{option} {name}: give one of {', '.join(names)}.")


def columns(pairs: list[str] | None) -> dict[str, str]:
    from tunesmith.data.shapes import COLUMNS

    result = {}
    for pair in pairs or []:
        key, _, name = pair.partition("=")
        if key not in COLUMNS or not name:
            raise CommandFailed(
                f"--column {pair}: give {', '.join(f'{key}=NAME' for key in COLUMNS)}."
            )
        result[key] = name
    return result


def told(done: Converted, out: Path, console: Console) -> None:
    from tunesmith.data.convert import SHAPES

    title = SHAPES[done.source].title if done.source else "nothing"
    say(console, f"Read {count(done.num_records, 'record')} as {title}.")
    for reason in done.skipped[:5]:
        say(console, f"  left out: {reason}", "yellow")
    if len(done.skipped) > 5:
        say(console, f"  ... and {len(done.skipped) - 5:,} more left out", "yellow")
    for key, number in sorted(done.dropped_keys.items()):
        say(console, f"  '{key}' has no place in a row and is left out of {number:,}", "yellow")
    if done.num_unfinished:
        say(console, f"  {done.num_unfinished:,} answers were cut off and are left out", "yellow")
    say(console, f"Wrote {count(done.num_rows, 'row')} to {out}.", "bold")


def split(
    file: Source,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--out",
            help="Training and validation file, given twice (default FILE.train and FILE.valid).",
            show_default=False,
        ),
    ] = None,
    ratio: Annotated[float, typer.Option(help="Share of the rows to validate with.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
) -> None:
    """Split into training and validation, duplicates on one side, labels evenly."""
    from tunesmith.data.split import split as run

    require_file(file)
    train, valid = out if out and len(out) == 2 else default_names(file, out)
    for path in (train, valid):
        refuse_same(file, path)
    done = run(file, train, valid, ratio=ratio, seed=seed)
    console = screen()
    say(console, f"{train}: {count(done.num_train, 'row')}", "bold")
    say(console, f"{valid}: {count(done.num_valid, 'row')}", "bold")
    if done.num_grouped:
        say(
            console,
            f"{done.num_grouped:,} rows are alike in {count(done.num_groups, 'group')}; "
            "each group is on one side.",
        )
    if done.labels:
        say(console, f"{count(done.labels, 'label')}, each split in the same ratio.")


def default_names(file: Path, out: list[Path] | None) -> tuple[Path, Path]:
    if out:
        raise CommandFailed("Give -o twice: the training file, then the validation file.")
    train, valid = (file.with_name(f"{file.stem}.{side}.jsonl") for side in ("train", "valid"))
    return train, valid


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
