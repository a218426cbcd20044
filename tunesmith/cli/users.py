"""`tunesmith users`: the people of the organisation, and their roles in projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunesmith.cli.jobs import when
from tunesmith.cli.options import DataDir
from tunesmith.cli.people import ALL, organization, show
from tunesmith.cli.problem import CommandFailed

if TYPE_CHECKING:
    from tunesmith.organization import Organization
    from tunesmith.store.repo.users import UserRow

app = typer.Typer(help="People, and their roles in projects.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="USER", help="E-mail address or id.")]
ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", help="Id of the project.")]


@app.command()
def add(
    email: Annotated[str, typer.Argument()],
    name: Annotated[str, typer.Option(help="Name (default: the address).")] = "",
    role: Annotated[
        Literal["owner", "reader"], typer.Option(help="In the organisation.")
    ] = "reader",
    data: DataDir = None,
) -> None:
    """Add a person to the organisation."""
    row = organization(data).add_user(email, name, role)
    print(f"{row.id} ({row.email}). `tunesmith users join {row.email} PROJECT` lets them work.")


@app.command(name="list")
def list_users(data: DataDir = None) -> None:
    """All people, and the projects that they are in."""
    from tunesmith.store.repo import projects, users

    shown = []
    with organization(data).db.read() as conn:
        in_projects: dict[str, list[str]] = {}
        for project in projects.page(conn, limit=ALL).rows:
            for member in users.members(conn, project.id, limit=ALL).rows:
                place = f"{project.id} ({member.role})"
                in_projects.setdefault(member.user_id, []).append(place)
        for row in users.page(conn, limit=ALL).rows:
            places = ", ".join(in_projects.get(row.id, [])) or "none"
            shown.append((row.id, row.email, row.name, row.role, when(row.added_at), places))
    show(("id", "e-mail", "name", "role", "added", "projects"), shown)


@app.command()
def join(
    user: Who,
    project: ProjectId,
    role: Annotated[str, typer.Option(help="owner, member or reader.")] = "member",
    data: DataDir = None,
) -> None:
    """Add a user to a project, or change the role there."""
    org = organization(data)
    row = org.join(project, find(org, user).id, None, role)
    print(f"{row.email} is {row.role} of {project}.")


@app.command()
def leave(user: Who, project: ProjectId, data: DataDir = None) -> None:
    """Take a user out of a project; their keys there end."""
    org = organization(data)
    row = find(org, user)
    org.leave(project, row.id)
    print(f"{row.email} has left {project}; their keys there are revoked.")


@app.command()
def remove(user: Who, data: DataDir = None) -> None:
    """Take a person out of the organisation; all their keys end."""
    org = organization(data)
    row = find(org, user)
    org.remove_user(row.id)
    print(f"{row.email} is removed; their keys are revoked.")


def find(org: Organization, user: str) -> UserRow:
    """By e-mail address or id."""
    from tunesmith.store.repo import users

    with org.db.read() as conn:
        row = users.by_email(conn, user) or users.get(conn, user)
    if row is None:
        raise CommandFailed(f"No user {user}. `tunesmith users list` shows all.")
    return row
