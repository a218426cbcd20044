"""`tunesmith export`: a tuned model as files for other programs, compared with what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunesmith.cli.options import DataDir, existing_store, require_torch
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from tunesmith.config import Settings
    from tunesmith.data.render import Example, Renderer
    from tunesmith.model.compare import Difference
    from tunesmith.model.export import Comparison, Tuned
    from tunesmith.store.db import Database
    from tunesmith.store.repo.jobs import JobRow

NUM_ROWS = 16


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A tuned model's name, ft:...")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to; must not exist yet.")
    ],
    format: Annotated[
        Literal["adapter", "merged", "gguf"],
        typer.Option(
            "--format",
            help="adapter: PEFT's two files. merged: a whole Hugging Face model. "
            "gguf: one file for llama.cpp and what is built on it.",
        ),
    ] = "adapter",
    type: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"] | None,
        typer.Option(
            "--type", help="Of the matrices in a GGUF file (default: f16).", show_default=False
        ),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="Rows to compare on (default: the job's validation file, else its training file).",
            show_default=False,
        ),
    ] = None,
    data: DataDir = None,
) -> None:
    """Write a tuned model for other programs, and compare it with what was trained."""
    if type is not None and format != "gguf":
        raise CommandFailed(
            f"--type {type} is for --format gguf; {format} files keep the types of the base. Leave "
            "it out, or add --format gguf."
        )
    require_torch()
    from tunesmith.model.threads import wait_briefly

    wait_briefly()
    settings, db = existing_store(data)
    tuned = find(settings, db, model, rows)
    from tunesmith.model.export import export as write

    target = output.expanduser().resolve()
    comparison = write(tuned, format, target, gguf_type=type or "f16")
    show(comparison, output)


def find(settings: Settings, db: Database, name: str, rows: Path | None) -> Tuned:
    """The model of that name with the rows to compare on."""
    from tunesmith.data.formats import because_of
    from tunesmith.data.render import Renderer
    from tunesmith.errors import DataError
    from tunesmith.model.export import Tuned
    from tunesmith.store.repo import bases, jobs, models

    with db.read() as conn:
        row = models.get_any(conn, name)
        base = bases.get(conn, row.base) if row else None
        job = jobs.get_any(conn, row.job_id) if row else None
        known = [each.name for each in models.all_rows(conn)]
    if row is None or job is None:
        some = ", ".join(known[-3:]) or "none yet"
        raise CommandFailed(f"There is no tuned model {name}. Tuned models here: {some}.")
    if base is None:
        raise CommandFailed(f"The base of {name}, {row.base}, is not registered any more.")
    path, words = (rows, f"rows of {rows.name}") if rows else job_rows(settings, job)
    try:
        examples, texts = read(path, job.method, Renderer.load(base.path), base.context_length)
    except DataError as error:
        # In the words for a job's file.
        reason = error.message.removeprefix(because_of("training_file")).strip()
        raise CommandFailed(f"{path.name}: {reason}") from error
    sha256 = row.adapter_sha256
    adapter = None if sha256 is None else settings.adapters_dir / sha256
    return Tuned(name, base.path, adapter, examples, words, texts)


def job_rows(settings: Settings, job: JobRow) -> tuple[Path, str]:
    """The file with rows that the job did not learn, or else those it did, and which that is."""
    from tunesmith.store.blobs import LocalBlobs

    blobs = LocalBlobs(settings.blobs_dir)
    for file_id, words in (
        (job.validation_file, "validation file: held out"),
        (job.training_file, "training file: no validation file is here"),
    ):
        if file_id is not None and blobs.path(file_id).is_file():
            return blobs.path(file_id), f"{file_id}, {words}"
    raise CommandFailed(
        f"The files of {job.id} were deleted, so there are no rows to compare the export on. "
        "Give some in the same format with --rows FILE."
    )


def read(
    path: Path, method: str, renderer: Renderer, max_tokens: int
) -> tuple[list[Example], list[str]]:
    """The first rows of a file that fit the model's context, and the texts in them."""
    from tunesmith.data.formats import read_rows
    from tunesmith.data.pair_rows import read_pairs

    chosen = (pair.preferred for pair in read_pairs(path)) if method == "dpo" else read_rows(path)
    examples: list[Example] = []
    texts: list[str] = []
    for row in chosen:
        found = [each for each in renderer.examples(row)[-1:] if len(each.ids) <= max_tokens]
        examples += found
        texts += [text for each in row.messages if isinstance(text := each.get("content"), str)]
        if len(examples) == NUM_ROWS:
            break
    if not examples:
        raise CommandFailed(f"{path} has no row that fits the model. Give others with --rows FILE.")
    return examples, texts


def show(comparison: Comparison, output: Path) -> None:
    from rich.table import Table

    console = screen()
    table = Table("form", "largest difference", "mean difference", box=None, pad_edge=False)
    if comparison.merged is None:
        table.add_row("model as it was trained", "(reference)", "")
    else:
        table.add_row("adapter on its base", "(reference)", "")
        table.add_row("merged, fp32", *figures(comparison.merged))
    table.add_row(f"{comparison.format} files", *figures(comparison.exported))
    say(
        console,
        f"{comparison.num_tokens} answer tokens of {comparison.num_rows} rows "
        f"({comparison.rows}); differences of log-probability in nats, computed in "
        f"{comparison.compute_dtype}, stored as {comparison.stored_dtype}",
    )
    console.print(table)
    if comparison.note:
        say(console, comparison.note[0].upper() + comparison.note[1:], "yellow")
    say(console, f"Written to {output}")


def figures(difference: Difference | None) -> tuple[str, str]:
    if difference is None:
        return "-", "-"
    return f"{difference.largest:.2g}", f"{difference.mean:.2g}"
