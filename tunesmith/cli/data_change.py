"""`tunesmith data convert` and `split`: new files from a file, never in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.data_base import Source, count, refuse_same, require_rows
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.data.convert import Converted


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

    require_rows(file)
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

    require_rows(file)
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
