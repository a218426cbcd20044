"""`tunesmith keys`: who may call the API of a data directory, and what each key may do."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from tunesmith.access import DEFAULT_PROJECT
from tunesmith.cli.jobs import when
from tunesmith.cli.options import DataDir
from tunesmith.cli.people import organization, show
from tunesmith.cli.problem import CommandFailed

app = typer.Typer(help="API keys of a data directory.", no_args_is_help=True)

DURATION = re.compile(r"([1-9][0-9]{0,5})([mhd])")
SECONDS = {"m": 60, "h": 3600, "d": 86_400}

Project = Annotated[str, typer.Option(help="Id of the project.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What or whom it is for.")] = "key",
    project: Project = DEFAULT_PROJECT,
    role: Annotated[str, typer.Option(help="owner, member or reader.")] = "member",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Only this of what the role may do; repeatable.", show_default=False),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Id of the user whose key it is.", show_default=False)
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Ends after: 90m, 12h, 30d.", show_default=False)
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="A key of the organisation.")] = False,
    data: DataDir = None,
) -> None:
    """Make a key. It is shown once."""
    expires_in_s = seconds_of(expires)
    if admin:
        row, secret = organization(data).create_admin_key(name, expires_in_s)
        about = "runs the organisation"
    else:
        row, secret = organization(data).create_key(
            project, name, role, scopes=scope, user_id=user, expires_in_s=expires_in_s
        )
        about = f"{row.role} of {row.project_id}"
    print(f"{secret}\n\n{row.id} ({name}), {about}.")
    print("Keep it: it is not stored and cannot be shown again.")


@app.command(name="list")
def list_keys(data: DataDir = None) -> None:
    """All keys, without their secrets."""
    from tunesmith.store.repo import keys

    org = organization(data)
    with org.db.read() as conn:
        rows = keys.list_all(conn)
    shown = []
    for row in rows:
        state = "active"
        if row.revoked_at is not None:
            state = f"revoked {when(row.revoked_at)}"
        elif row.expires_at is not None:
            verb = "expired" if row.expires_at <= org.now else "until"
            state = f"{verb} {when(row.expires_at)}"
        role = row.role if row.scopes is None else f"{row.role}, {len(row.scopes)} scopes"
        used = when(row.last_used_at) or "never"
        project = row.project_id or "organisation"
        shown.append((row.id, row.name, row.masked, project, role, used, state))
    show(("id", "name", "key", "project", "role", "last used", "state"), shown)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")],
    data: DataDir = None,
) -> None:
    """End a key; the next request with it is refused."""
    from tunesmith.store.repo import keys

    org = organization(data)
    with org.db.read() as conn:
        found = [row for row in keys.list_all(conn) if row.id == key_id and row.revoked_at is None]
    if not found:
        raise CommandFailed(f"No active key {key_id}. `tunesmith keys list` shows all.")
    org.revoke_key(found[0].project_id, key_id)
    print(f"{key_id} is revoked.")


def seconds_of(text: str | None) -> int | None:
    if text is None:
        return None
    found = DURATION.fullmatch(text)
    if found is None:
        raise CommandFailed(f"--expires {text!r}: give a number with m, h or d, such as 30d.")
    return int(found[1]) * SECONDS[found[2]]
