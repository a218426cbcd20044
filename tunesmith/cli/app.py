"""The command `tunesmith`.

Importing this module, and so every `--help`, costs little more than typer: a command imports what
it needs when it runs. Errors end as one line on stderr and exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunesmith import __version__
from tunesmith.cli import (
    base,
    chat,
    data,
    demo,
    doctor,
    export,
    jobs,
    keys,
    limits,
    projects,
    tune,
    usage,
    users,
    worker,
)
from tunesmith.cli.options import DataDir, require_torch, settings
from tunesmith.cli.problem import explain

app = typer.Typer(
    name="tunesmith",
    help="The fine-tuning service you keep: OpenAI's fine-tuning API over open-weight models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"tunesmith {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=show_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    data: DataDir = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on (default 127.0.0.1).", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port; 0 picks a free one (default 8000).", show_default=False),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="What answers: local (default) or vllm.", show_default=False),
    ] = None,
    vllm_python: Annotated[
        Path | None,
        typer.Option(help="Python of an environment with vLLM, to start it.", show_default=False),
    ] = None,
    vllm_url: Annotated[
        str | None,
        typer.Option(help="vLLM that runs already; several with commas.", show_default=False),
    ] = None,
) -> None:
    """Start everything on this machine: API, worker and engine."""
    require_torch()
    from tunesmith.cli.serve import run

    vllm = {"vllm_python": vllm_python, "vllm_url": vllm_url}
    raise typer.Exit(run(settings(data=data, host=host, port=port, engine=engine, **vllm)))


app.command(name="worker")(worker.work)
app.add_typer(base.app, name="base")
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(projects.app, name="projects")
app.add_typer(users.app, name="users")
app.add_typer(limits.app, name="limits")
app.command(name="usage")(usage.usage)
app.add_typer(jobs.app, name="jobs")
app.command(name="tune")(tune.tune)
app.command(name="chat")(chat.chat)
app.command(name="export")(export.export)
app.command(name="doctor")(doctor.doctor)
app.command(name="demo")(demo.demo)


def main() -> None:
    try:
        app()
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"tunesmith: {line}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
