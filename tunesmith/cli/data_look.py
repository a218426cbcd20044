"""`tunesmith data show`, `sample` and `stats`: a file as people and as models see it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.data_base import BaseName, Source, Target, TokenizerDir, require_file, target
from tunesmith.cli.options import DataDir
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.data.formats import ChatRow
    from tunesmith.data.render import Example
    from tunesmith.data.show import Token
    from tunesmith.data.stats import Stats

ROLE_STYLES = {
    "system": "magenta",
    "developer": "magenta",
    "user": "cyan",
    "assistant": "green",
    "tool": "yellow",
}
# Two shades take turns, so that one sees where a token ends.
TRAINED, IGNORED = ("black on green", "black on bright_green"), ("bright_black", "white")
SPECIAL, BEYOND = "bold", "red strike"
BAR, HALF_BAR = "\u2588", "\u258c"
BAR_CHARS = 40
SHOWN_LABELS = 20
SHOWN_SYSTEMS = 5
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
    ids: Annotated[bool, typer.Option("--ids", help="Show the ids of the tokens, too.")] = False,
    data: DataDir = None,
) -> None:
    """A row as the model will see it, token by token, with what is trained in colour."""
    require_file(file)
    aim = target(base, tokenizer, data)
    found = read_example(file, row)
    console = screen()
    limit = max_tokens or aim.max_tokens
    examples = aim.renderer.examples(found)
    where = f"{file.name}, example {found.number}"
    where += f" (line {found.line})" if found.line != found.number else ""
    say(console, f"{where}, as {aim.name} sees it\n", "bold")
    for number, example in enumerate(examples, 1):
        if len(examples) > 1:
            say(console, f"Sequence {number} of {len(examples)}", "bold")
        show_example(aim, example, limit, ids, console)
    legend(console, limit is not None and any(len(each.ids) > limit for each in examples))


def read_example(file: Path, number: int) -> ChatRow:
    """One example; what is wrong with others is of no matter."""
    from tunesmith.data.formats import Place, chat_row
    from tunesmith.data.raw import read_raw

    row = next((row for row in read_raw(file) if row.number == number), None)
    if row is None:
        raise CommandFailed(f"{file.name} has no example {number}.")
    if row.problem is not None:
        raise CommandFailed(f"{file.name}, line {row.line}: {row.problem.message}.")
    return chat_row(Place("training_file", row.number, row.line, file.name), row.value)


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
    line = f"\n{len(example.ids):,} tokens, {trained:,} trained ({trained / len(example.ids):.0%})"
    if cut and limit is not None:
        lost = len(example.ids) - limit
        lost_trained = sum(weight > 0 for weight in example.weights[limit:])
        what = "the whole answer" if lost_trained == trained else f"{lost_trained:,} trained ones"
        line += f"; {lost:,} beyond the limit, among them {what}. A job refuses this row."
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
) -> None:
    """A few rows drawn at random, for a look."""
    from rich.text import Text

    from tunesmith.data.formats import read_rows

    require_file(file)
    generator = random.Random(seed)
    drawn: list[ChatRow] = []
    for seen, row in enumerate(read_rows(file), 1):
        if len(drawn) < num:
            drawn.append(row)
        elif (place := generator.randrange(seen)) < num:
            drawn[place] = row
    console = screen()
    for row in sorted(drawn, key=lambda each: each.number):
        say(console, f"example {row.number}", "dim")
        for message in row.messages:
            role = message["role"]
            text = message["content"] or ""
            for call in message.get("tool_calls", ()):
                text += f"{call['function']['name']}({call['function']['arguments']})"
            weight = "  (weight 0)" if message.get("weight") == 0 else ""
            console.print(
                Text.assemble((f"{role:>10}  ", ROLE_STYLES.get(role, "")), text, (weight, "dim")),
                soft_wrap=True,
            )
        say(console)


def stats(
    file: Source,
    base: BaseName = None,
    tokenizer: TokenizerDir = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    data: DataDir = None,
) -> None:
    """Histograms: tokens, turns, answers, labels, system messages."""
    from tunesmith.data.formats import read_rows
    from tunesmith.data.render import RenderError
    from tunesmith.data.stats import Stats

    require_file(file)
    aim = target(base, tokenizer, data)
    found = Stats()
    for row in read_rows(file):
        try:
            examples = aim.renderer.examples(row)
        except RenderError:
            found.add(as_dict(row), None, 0)
            continue
        num = sum(len(example.ids) for example in examples)
        found.add(as_dict(row), num, sum(w > 0 for each in examples for w in each.weights))
    if found.num_rows == 0:
        raise CommandFailed(f"{file.name} has no rows.")
    if json_:
        print(json.dumps(figures(found, aim), ensure_ascii=False, indent=2))
    else:
        show_stats(found, aim, screen())


def as_dict(row: ChatRow) -> dict[str, Any]:
    return {"messages": row.messages, "tools": row.tools}


def figures(found: Stats, aim: Target) -> dict[str, Any]:
    from tunesmith.data.figures import Distribution

    def spread(values: Any) -> dict[str, Any] | None:
        of = Distribution.of(values)
        return None if of is None else vars(of)

    return {
        "num_rows": found.num_rows,
        "tokenizer": aim.name,
        "num_tokens": sum(found.tokens),
        "num_trained_tokens": found.trained,
        "num_not_rendered": found.num_not_rendered,
        "tokens": spread(found.tokens),
        "turns": spread(found.turns),
        "answer_characters": spread(found.answer_chars),
        "roles": dict(found.roles),
        "labels": dict(found.labels.most_common()) if found.labels else None,
        "num_system_messages": len(found.systems),
        "num_with_tools": found.num_with_tools,
    }


def show_stats(found: Stats, aim: Target, console: Console) -> None:
    from tunesmith.data.stats import balance

    total = sum(found.tokens)
    share = found.trained / total if total else 0
    say(console, f"{found.num_rows:,} rows, {total:,} tokens for {aim.name}, ", "bold")
    say(console, f"{found.trained:,} of them trained ({share:.0%}).\n")
    bars("tokens a row", found.tokens, console)
    bars("user and assistant messages a row", found.turns, console)
    bars("characters an answer", found.answer_chars, console)
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
    say(console, f"messages: {roles}")
    if found.num_with_tools:
        say(console, f"rows with tools: {found.num_with_tools:,}")
    if found.num_not_rendered:
        text = f"{found.num_not_rendered:,} rows cannot be rendered for {aim.name}"
        say(console, f"{text}: tunesmith data check", "yellow")


def bars(title: str, values: Any, console: Console) -> None:
    from tunesmith.data.figures import Distribution
    from tunesmith.data.stats import histogram

    spread = Distribution.of(values)
    if spread is None:
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
