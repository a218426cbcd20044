"""`tunesmith keys`: who may call the API of a data directory."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.jobs import when
from tunesmith.cli.options import DataDir, existing_store
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import screen
from tunesmith.ids import SystemClock, SystemRng

app = typer.Typer(help="API keys of a data directory.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What or whom it is for.")] = "key",
    data: DataDir = None,
) -> None:
    """Make a key. It is shown once."""
    from tunesmith.store.repo import keys

    settings, db = existing_store(data)
    pepper = keys.load_pepper(settings.data_dir)
    with db.write() as conn:
        now = int(SystemClock().now())
        row, secret = keys.create(conn, pepper, SystemRng(), name=name, now=now)
    print(f"{secret}\n\n{row.id} ({name}). Keep it: it is not stored and cannot be shown again.")


@app.command(name="list")
def list_keys(data: DataDir = None) -> None:
    """All keys, without their secrets."""
    from rich.table import Table

    from tunesmith.store.repo import keys

    _, db = existing_store(data)
    with db.read() as conn:
        rows = keys.list_all(conn)
    table = Table("id", "name", "key", "created", "last used", "state", box=None, pad_edge=False)
    for row in rows:
        state = "active" if row.revoked_at is None else f"revoked {when(row.revoked_at)}"
        used = when(row.last_used_at) or "never"
        table.add_row(row.id, row.name, row.masked, when(row.created_at), used, state)
    screen().print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")],
    data: DataDir = None,
) -> None:
    """End a key; the next request with it is refused."""
    from tunesmith.store.repo import keys

    _, db = existing_store(data)
    with db.write() as conn:
        if not keys.revoke(conn, key_id, int(SystemClock().now())):
            raise CommandFailed(f"No active key {key_id}. `tunesmith keys list` shows all.")
    print(f"{key_id} is revoked.")
