"""Which base model a file is looked at with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import existing_store, settings
from tunesmith.cli.problem import CommandFailed

if TYPE_CHECKING:
    from tunesmith.data.render import Renderer

Source = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]
BaseName = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Base model: a registered name or a directory (default: the embedded one).",
        show_default=False,
    ),
]
TokenizerDir = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        help="Directory with tokenizer.json and a chat template, in place of a base.",
        show_default=False,
    ),
]
METHODS = ("supervised", "dpo", "reinforcement", "evals")
Method = Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")]
RowsMethod = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Read the rows as this method's (default: by their keys).",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Target:
    """The tokenizer, template and limit that rows are measured with."""

    name: str
    directory: Path
    renderer: Renderer
    max_tokens: int | None
    """Most tokens of one example; None if nothing says so."""


def require_file(path: Path) -> Path:
    if path.is_dir():
        raise CommandFailed(f"{path} is a directory. Name one file.")
    if path.exists() and not path.is_file():
        raise CommandFailed(f"{path} is no regular file. Write what comes from it to one first.")
    if not path.exists():
        raise CommandFailed(f"{path}: no such file.")
    return path


def require_rows(path: Path) -> Path:
    """A file that may hold rows: neither empty nor of a kind that is known to be something else."""
    from tunesmith.data.formats import OTHER_KINDS
    from tunesmith.data.kinds import detect

    found = detect(require_file(path))
    if found.kind == "empty":
        raise CommandFailed(f"{path.name} has no rows.")
    if found.kind == "binary":
        with path.open("rb") as file:
            head = file.read(8)
        name = next(name for start, name in OTHER_KINDS if head.startswith(start))
        raise CommandFailed(f"{path.name} is {name}. Unpack it, or: {found.hint}")
    return path


def require_method(method: str | None) -> None:
    if method is not None and method not in METHODS:
        raise CommandFailed(f"--method {method}: give one of {', '.join(METHODS)}.")


def refuse_same(file: Path, out: Path) -> None:
    if out.exists() and out.samefile(file):
        raise CommandFailed(f"{out} is the file itself. Give another name; nothing is lost then.")


@contextmanager
def reading(file: Path, title: str, show: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, if that is a terminal, while a file is read; call it with the bytes
    read and all bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not show or not console.is_terminal:
        # A bar that is disabled ends with a newline all the same.
        yield lambda done, size: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=file.stat().st_size)
        yield lambda done, size: progress.update(task, completed=done, total=size)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def target(base: str | None, tokenizer: Path | None, data: Path | None) -> Target:
    """What the options name. Raises CommandFailed or BaseModelError."""
    from tunesmith.data.render import Renderer

    if base and tokenizer:
        raise CommandFailed("Give either --base or --tokenizer, not both.")
    if tokenizer:
        renderer = Renderer.load(tokenizer)
        return Target(tokenizer.name, tokenizer, renderer, _context_length(tokenizer))
    name, directory = locate(base, data)
    return Target(name, directory, Renderer.load(directory), _context_length(directory))


def locate(base: str | None, data: Path | None) -> tuple[str, Path]:
    """(name, directory) of a base: the embedded one, a directory, a registered name or alias."""
    from tunesmith.bases import EMBEDDED_NAME, embedded_directory

    if base in (None, EMBEDDED_NAME):
        return EMBEDDED_NAME, embedded_directory()
    assert base is not None
    if Path(base).is_dir():
        return Path(base).resolve().name, Path(base).resolve()
    found = settings(data=data)
    if not found.database_path.exists():
        raise CommandFailed(
            f"No base {base}: {found.data_dir} is no data directory. Name one with --data, "
            "or give the model's directory as --base."
        )
    from tunesmith.store.repo import bases

    _, db = existing_store(data)
    with db.read() as conn:
        info = bases.resolve(conn, base)
    if info is None:
        raise CommandFailed(f"No base {base}. `tunesmith base list` shows all.")
    return info.name, info.path


def _context_length(directory: Path) -> int | None:
    from tunesmith.bases import CONTEXT_KEYS

    path = directory / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_bytes())
    lengths = [config[key] for key in CONTEXT_KEYS if isinstance(config.get(key), int)]
    return lengths[0] if lengths else None
