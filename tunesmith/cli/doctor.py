"""`tunesmith doctor`: what is wrong with the installation and the data directory, and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import DataDir, settings
from tunesmith.cli.screen import say, screen

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
    from tunesmith.cli.checks import directory, installation

    console = screen()
    found = settings(data=data)
    checks = [*installation(), *directory(found, deep=not quick)]
    errors = sum(show(check, console) for check in checks)
    if errors:
        say(console, f"\n{errors} to mend.", "red")
        raise typer.Exit(1)
    say(console, "\nNothing is broken.", "green")


def show(check: Check, console: Console) -> int:
    """Prints a check and returns how many errors it has."""
    if not check.breaches:
        say(console, f"ok       {check.name}")
    for breach in check.breaches:
        colour = "red" if breach.severity == "error" else "yellow"
        say(console, f"{breach.severity:<8} {check.name}: {breach.message}", colour)
        say(console, f"         {breach.fix}")
    return sum(breach.severity == "error" for breach in check.breaches)
