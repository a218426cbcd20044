"""`tunesmith doctor`: what is wrong with the installation and the data directory, and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import DataDir, settings

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.jobs.audit import Check


def doctor(
    data: DataDir = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the content of files and adapters.")
    ] = False,
) -> None:
    """Check the installation and the data directory; say what is wrong and how to mend it."""
    from rich.console import Console

    from tunesmith.cli.checks import directory, installation

    console = Console(highlight=False)
    found = settings(data=data)
    checks = [*installation(), *directory(found, deep=not quick)]
    errors = sum(show(check, console) for check in checks)
    if errors:
        console.print(f"\n[red]{errors} to mend.[/red]")
        raise typer.Exit(1)
    console.print("\n[green]Nothing is broken.[/green]")


def show(check: Check, console: Console) -> int:
    """Prints a check and returns how many errors it has."""
    from rich.markup import escape

    if not check.breaches:
        console.print(f"[green]ok[/green]       {escape(check.name)}", soft_wrap=True)
    for breach in check.breaches:
        colour = "red" if breach.severity == "error" else "yellow"
        text = f"{escape(check.name)}: {escape(breach.message)}"
        console.print(f"[{colour}]{breach.severity:<8}[/{colour}] {text}", soft_wrap=True)
        console.print(f"         {escape(breach.fix)}", soft_wrap=True)
    return sum(breach.severity == "error" for breach in check.breaches)
