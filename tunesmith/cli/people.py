"""What the commands of access share: the organisation of a data directory, and lists as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.cli.options import existing_store

if TYPE_CHECKING:
    from tunesmith.organization import Organization

# Of a list that a terminal shows whole.
ALL = 10_000


def organization(data: Path | None) -> Organization:
    """Changed by the command line, which the audit log names by leaving the key out."""
    from tunesmith.ids import SystemClock, SystemRng
    from tunesmith.organization import Organization
    from tunesmith.store.repo import keys

    settings, db = existing_store(data)
    return Organization(db, SystemClock(), SystemRng(), keys.load_pepper(settings.data_dir))


def show(columns: tuple[str, ...], rows: Sequence[Sequence[str | None]]) -> None:
    from rich.table import Table

    from tunesmith.cli.screen import screen

    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        # The first is what other commands want to be given: whole, on any screen.
        table.add_column(column, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    screen().print(table)
