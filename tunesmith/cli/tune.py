"""`tunesmith tune`: from a data file to a tuned model's name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.options import DEFAULT_BASE_URL, ApiKey, BaseUrl, connect
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from openai import OpenAI
    from rich.console import Console

HYPERPARAMETER = "a number, or auto"


class Method(StrEnum):
    supervised = "supervised"
    dpo = "dpo"


def tune(
    file: Annotated[Path, typer.Argument(help="Training data, JSONL.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="Base model, tuned model or alias.", show_default=False)
    ],
    valid: Annotated[
        Path | None, typer.Option(help="Validation data, JSONL.", show_default=False)
    ] = None,
    method: Annotated[
        Method, typer.Option(help="supervised: learn the answers; dpo: learn to prefer one.")
    ] = Method.supervised,
    suffix: Annotated[
        str | None, typer.Option(help="A word for the new model's name.", show_default=False)
    ] = None,
    epochs: Annotated[str, typer.Option(help=f"Rounds over the data: {HYPERPARAMETER}.")] = "auto",
    batch_size: Annotated[str, typer.Option(help=f"Rows per step: {HYPERPARAMETER}.")] = "auto",
    lr_multiplier: Annotated[
        str, typer.Option(help=f"Factor on the learning rate: {HYPERPARAMETER}.")
    ] = "auto",
    beta: Annotated[
        str, typer.Option(help=f"How hard dpo holds on to the start: {HYPERPARAMETER}.")
    ] = "auto",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="A further hyperparameter, such as lora_rank=8 or finetuning_type=dora.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Makes the run repeatable.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option(help="Follow the job until it ends.")] = True,
    base_url: BaseUrl = DEFAULT_BASE_URL,
    api_key: ApiKey = "",
) -> None:
    """Upload a file, tune a model on it, follow the job, print the model's name."""
    for path in (file, valid):
        if path is not None and not path.is_file():
            raise CommandFailed(f"{path}: no such file.")
    hyperparameters: dict[str, Any] = {
        "n_epochs": number("--epochs", epochs, int),
        "batch_size": number("--batch-size", batch_size, int),
        "learning_rate_multiplier": number("--lr-multiplier", lr_multiplier, float),
    }
    if method is Method.dpo:
        hyperparameters["beta"] = number("--beta", beta, float)
    elif beta != "auto":
        raise CommandFailed("--beta belongs to --method dpo.")
    hyperparameters |= dict(map(further, option or []))
    client = connect(base_url, api_key)
    console = screen()
    request: dict[str, Any] = {
        "model": model,
        "training_file": upload(client, file, console),
        "method": {"type": method.value, method.value: {"hyperparameters": hyperparameters}},
    }
    if valid is not None:
        request["validation_file"] = upload(client, valid, console)
    request.update({k: v for k, v in (("suffix", suffix), ("seed", seed)) if v is not None})
    job = client.fine_tuning.jobs.create(**request)
    say(console, f"Job {job.id} is under way.")
    if watch:
        finish(client, job.id, console, base_url)
    else:
        say(console, f"Follow it with: tunesmith jobs show {job.id} --watch")


def number(option: str, text: str, kind: type[int] | type[float]) -> int | float | str:
    if text == "auto":
        return text
    try:
        return kind(text)
    except ValueError:
        raise CommandFailed(f"{option} {text}: give {HYPERPARAMETER}.") from None


def further(text: str) -> tuple[str, Any]:
    """A hyperparameter written NAME=VALUE: a JSON value, or a word."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise CommandFailed(f"--option {text}: write NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def upload(client: OpenAI, path: Path, console: Console) -> str:
    from rich.text import Text

    with path.open("rb") as data, console.status(Text(f"Uploading {path.name}")):
        file = client.files.create(file=(path.name, data), purpose="fine-tune")
    say(console, f"Uploaded {path.name}: {file.id}, {file.bytes:,} bytes.")
    return file.id


def finish(client: OpenAI, job_id: str, console: Console, base_url: str) -> None:
    """Follows the job to its end and says how to call the model."""
    from tunesmith.cli.follow import follow, require_success

    try:
        job = follow(client, job_id, console)
    except KeyboardInterrupt:
        say(console, "\nNo longer watching; the job goes on.")
        say(console, f"Look again: tunesmith jobs show {job_id} --watch")
        say(console, f"Stop it:    tunesmith jobs cancel {job_id}")
        raise typer.Exit(130) from None
    name = require_success(job)
    say(console, f"\nTuned model: {name}\n", "bold")
    say(console, how_to_call(name, base_url))


def how_to_call(
    model: str,
    base_url: str,
    api_key: str | None = None,
    messages: Sequence[Mapping[str, str]] = ({"role": "user", "content": "..."},),
) -> str:
    """Lines of Python that get an answer from a model."""
    key = f'"{api_key}"' if api_key else 'os.environ["TUNESMITH_API_KEY"]'
    head = "" if api_key else "import os\n"
    turns = "".join(f"        {json.dumps(m, ensure_ascii=False)},\n" for m in messages)
    return (
        f"{head}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}", api_key={key})\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{model}",\n'
        f"    messages=[\n{turns}    ],\n"
        ")\n"
        "print(answer.choices[0].message.content)"
    )
