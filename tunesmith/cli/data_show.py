"""`tunesmith data show` and `sample`: single rows as people and as models see them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from tunesmith.cli.options import DataDir
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.data.render import Example
    from tunesmith.data.rows import Row
    from tunesmith.data.show import Token

ROLE_STYLES = {
    "system": "magenta",
    "developer": "magenta",
    "user": "cyan",
    "assistant": "green",
    "tool": "yellow",
    "preferred": "green",
    "rejected": "red",
    "completion": "green",
}
NAMES = {
    "prompt": "The prompt, up to where the model begins",
    "preferred": "The prompt with the preferred answer",
    "rejected": "The prompt with the rejected answer",
}
# Two shades take turns, so that one sees where a token ends.
TRAINED, IGNORED = ("black on green", "black on bright_green"), ("bright_black", "white")
SPECIAL, BEYOND = "bold", "red strike"
# A line break is a token's text; what is seen must stand for it.
VISIBLE = {"\n": "\u23ce\n", "\t": "\u21e5   "}


def show(
    file: Source,
    row: Annotated[int, typer.Option(help="Which example, from 1.")] = 1,
    base: BaseName = None,
    tokenizer: TokenizerDir = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Limit to mark (default: the base's context).", show_default=False),
    ] = None,
    method: RowsMethod = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show the ids of the tokens, too.")] = False,
    data: DataDir = None,
) -> None:
    """A row as the model will see it, token by token, with what is trained in colour."""
    from tunesmith.data.rows import PromptRow, texts
    from tunesmith.data.sequences import sequences

    require_file(file)
    require_method(method)
    aim = target(base, tokenizer, data)
    found = read_row(file, row, method)
    console = screen()
    limit = max_tokens or aim.max_tokens
    shown = sequences(aim.renderer, found)
    where = f"{file.name}, example {found.number}"
    where += f" (line {found.line})" if found.line != found.number else ""
    say(console, f"{where}, as {aim.name} sees it\n", "bold")
    for number, each in enumerate(shown, 1):
        if each.name:
            say(console, NAMES.get(each.name, each.name), "bold")
        elif len(shown) > 1:
            say(console, f"Sequence {number} of {len(shown)}", "bold")
        show_example(aim, each.example, limit, ids, console)
    if isinstance(found, PromptRow) and found.kind == "reinforcement" and found.fields:
        say(console, "Beside the prompt, for the grader; the model does not see it", "bold")
        for name, text in texts(found.fields):
            say(console, f"  {name}: {text}")
        say(console)
    legend(console, limit is not None and any(len(each.example.ids) > limit for each in shown))


def read_row(file: Path, number: int, method: str | None) -> Row:
    """One example; what is wrong with others is of no matter."""
    from tunesmith.data.raw import read_raw
    from tunesmith.data.rows import as_row, file_kind

    row = next((row for row in read_raw(file) if row.number == number), None)
    if row is None:
        raise CommandFailed(f"{file.name} has no example {number}.")
    return as_row(file, row, file_kind(file, method))


def show_example(
    aim: Target, example: Example, limit: int | None, with_ids: bool, console: Console
) -> None:
    from rich.text import Text

    from tunesmith.data.show import tokens

    text = Text()
    cut = False
    shown = tokens(aim.renderer, example, limit if limit is not None else len(example.ids))
    for place, token in enumerate(shown):
        if token.beyond and not cut:
            text.append(f"\n---- cut here: {limit:,} tokens is the limit ----\n", "bold red")
            cut = True
        text.append(visible(token.text), style(token, place % 2))
        if with_ids:
            text.append(f"[{' '.join(map(str, token.ids))}]", "dim")
    console.print(text, soft_wrap=True)
    trained = sum(weight > 0 for weight in example.weights)
    share = trained / max(1, len(example.ids))
    line = f"\n{len(example.ids):,} tokens, {trained:,} trained ({share:.0%})"
    if cut and limit is not None:
        lost = len(example.ids) - limit
        lost_trained = sum(weight > 0 for weight in example.weights[limit:])
        what = "the whole answer" if lost_trained == trained else f"{lost_trained:,} trained ones"
        among = f", among them {what}" if trained else ""
        line += f"; {lost:,} beyond the limit{among}. A job refuses this row."
    say(console, line + "\n")


def style(token: Token, shade: int) -> str:
    if token.beyond:
        return BEYOND
    colour = (TRAINED if token.trained else IGNORED)[shade]
    return f"{SPECIAL} {colour}" if token.special else colour


def visible(text: str) -> str:
    return "".join(VISIBLE.get(char, char) for char in text)


def legend(console: Console, with_cut: bool) -> None:
    from rich.text import Text

    text = Text.assemble(
        (" trained ", TRAINED[0]), "  ", ("only read", IGNORED[0]), "  ", ("control token", SPECIAL)
    )
    if with_cut:
        text.append("  ").append("beyond the limit", BEYOND)
    console.print(text)


def sample(
    file: Source,
    num: Annotated[int, typer.Option("-n", "--num", help="How many rows.")] = 3,
    seed: Annotated[
        int | None, typer.Option(help="Draws the same rows again.", show_default=False)
    ] = None,
    method: RowsMethod = None,
) -> None:
    """A few rows drawn at random, for a look."""
    from rich.text import Text

    from tunesmith.data.rows import parts, read_any

    require_file(file)
    require_method(method)
    generator = random.Random(seed)
    drawn: list[Row] = []
    for seen, row in enumerate(read_any(file, method), 1):
        if len(drawn) < num:
            drawn.append(row)
        elif (place := generator.randrange(seen)) < num:
            drawn[place] = row
    console = screen()
    for row in sorted(drawn, key=lambda each: each.number):
        say(console, f"example {row.number}", "dim")
        for part in parts(row):
            head = (f"{part.label:>10}  ", ROLE_STYLES.get(part.label, ""))
            note = (f"  ({part.note})" if part.note else "", "dim")
            console.print(Text.assemble(head, part.text, note), soft_wrap=True)
        say(console)
