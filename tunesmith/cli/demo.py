"""`tunesmith demo`: the whole line on real data, with an honest score before and after.

The embedded base model learns to name the intent of a request from 1,204 rows of SNIPS (CC0). The
280 rows it is measured on are from that data set's validation half and are not among them. Both
scores count exact matches of the greedy answer, asked through the public API like any client would.
"""

from __future__ import annotations

import json
import math
import shutil
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.options import DEFAULT_BASE_URL
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen
from tunesmith.shipped import (
    BASE,
    HELD_OUT_FILE,
    HYPERPARAMETERS,
    SEED,
    SUFFIX,
    TRAINING_FILE,
)

if TYPE_CHECKING:
    from openai import OpenAI
    from rich.console import Console
    from rich.table import Table

    from tunesmith.cli.background import Server

MARKER = ".tunesmith-demo"  # says that the directory is the demo's own and may be replaced
MAX_ANSWER_TOKENS = 16  # the longest label needs fewer; an answer that runs on is wrong anyway
CONCURRENCY = 16
SHOWN = 6

Answer = str
Row = dict[str, Any]


def demo(
    data: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path(
        "tunesmith-demo"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Tune the embedded model on real data and measure it, in about a minute."""
    from tunesmith.cli.background import background_server

    console = screen()
    fresh_directory(data)
    times = Times()
    say(console, "Tunesmith demo: teach a small model seven intents, right here.\n", "bold")
    with ExitStack() as stack:
        with times.part("server start"):
            server = stack.enter_context(background_server(data))
        try:
            story(server, console, times)
            if keep:
                say(console, "\nThe server keeps running. Ctrl-C ends it.")
                server.process.wait()
        except KeyboardInterrupt:
            say(console, "\nStopping the server.")


def story(server: Server, console: Console, times: Times) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=server.base_url, api_key=server.api_key)
    rows = read_rows(HELD_OUT_FILE)
    say(console, f"1  Server at {server.base_url}, data in {server.data}")
    say(console, f"2  {BASE} answers {len(rows)} held-out requests before tuning:")
    with times.part("before: answers"):
        before = answers(client, BASE, rows, console)
    say(console, f"   {Score.of(before, rows)} right")
    say(console, "3  Fine-tuning on 1,204 examples:")
    with times.part("job"):
        model = train(client, console)
    say(console, f"4  {model} answers the same requests:")
    with times.part("after: answers"):
        after = answers(client, model, rows, console)
    say(console, f"   {Score.of(after, rows)} right\n")
    say(console, f"The first {SHOWN} held-out requests:")
    console.print(comparison(rows, before, after))
    say(console, f"All {len(rows)}:")
    console.print(scores(Score.of(before, rows), Score.of(after, rows)))
    say(console, f"\nTime: {times}")
    farewell(server, model, rows[0], console)


@dataclass
class Times:
    """Seconds that the parts took, in order."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.parts[name] = time.monotonic() - start

    def __str__(self) -> str:
        split = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.parts.items())
        return f"{sum(self.parts.values()):.1f} s ({split})"


@dataclass(frozen=True)
class Score:
    correct: int
    total: int

    @classmethod
    def of(cls, given: list[Answer], rows: list[Row]) -> Score:
        return cls(sum(a == expected(r) for a, r in zip(given, rows, strict=True)), len(rows))

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the true rate."""
        z, n = 1.959964, self.total
        rate = self.correct / n
        middle = rate + z * z / (2 * n)
        spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)

    def rate(self) -> str:
        return f"{self.correct / self.total:.1%}"

    def __str__(self) -> str:
        return f"{self.correct} of {self.total}"


def fresh_directory(data: Path) -> None:
    if data.exists():
        ours = data.is_dir() and ((data / MARKER).exists() or not any(data.iterdir()))
        if not ours:
            raise CommandFailed(f"{data} is there and no demo made it. Choose another with --data.")
        shutil.rmtree(data)
    data.mkdir(parents=True)
    (data / MARKER).touch()


def read_rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def expected(row: Row) -> Answer:
    return str(row["messages"][-1]["content"])


def request_text(row: Row) -> str:
    return str(row["messages"][-2]["content"])


def answers(client: OpenAI, model: str, rows: list[Row], console: Console) -> list[Answer]:
    """The model's greedy answer to every row's messages but the last."""
    from rich.progress import track

    def ask(row: Row) -> Answer:
        completion = client.chat.completions.create(
            model=model,
            messages=row["messages"][:-1],
            temperature=0,
            max_tokens=MAX_ANSWER_TOKENS,
        )
        return (completion.choices[0].message.content or "").strip()

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        given = pool.map(ask, rows)
        if console.is_terminal:
            given = iter(track(given, "   asking", len(rows), console=console, transient=True))
        return list(given)


def train(client: OpenAI, console: Console) -> str:
    from tunesmith.cli.follow import follow, require_success
    from tunesmith.cli.tune import upload

    request: Any = {
        "model": BASE,
        "training_file": upload(client, TRAINING_FILE, console),
        "suffix": SUFFIX,
        "seed": SEED,
        "method": {"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}},
    }
    job = client.fine_tuning.jobs.create(**request)
    return require_success(follow(client, job.id, console))


def comparison(rows: list[Row], before: list[Answer], after: list[Answer]) -> Table:
    """The first held-out rows, whatever the answers were."""
    from rich.table import Table
    from rich.text import Text

    table = Table("request")
    table.add_column("expected", no_wrap=True)
    table.add_column("before", max_width=16)
    table.add_column("after", no_wrap=True)
    for row, old, new in list(zip(rows, before, after, strict=True))[:SHOWN]:
        colour = "green" if new == expected(row) else "red"
        table.add_row(Text(request_text(row)), expected(row), Text(old), Text(new, colour))
    return table


def scores(before: Score, after: Score) -> Table:
    from rich.table import Table

    table = Table("", "exact match", "rate", "95 % interval")
    for name, score in (("before", before), ("after", after)):
        low, high = score.interval()
        table.add_row(name, str(score), score.rate(), f"{low:.1%} to {high:.1%}")
    return table


def farewell(server: Server, model: str, row: Row, console: Console) -> None:
    from tunesmith.cli.tune import how_to_call

    prompt = row["messages"][:-1]
    code = how_to_call(model, DEFAULT_BASE_URL, server.api_key, prompt)
    key, system = f"--api-key {server.api_key}", f'--system "{prompt[0]["content"]}"'
    say(console, "\nServe it again whenever you like:\n")
    say(console, f"    tunesmith serve --data {server.data}\n")
    say(console, "and ask it more, in the terminal or from Python:\n")
    say(console, f"    tunesmith chat {model} {key} {system}\n")
    say(console, textwrap.indent(code, "    "))
