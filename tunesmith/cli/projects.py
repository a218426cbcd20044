"""`tunesmith projects`: what keeps one team's files, jobs and models from another's."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.jobs import when
from tunesmith.cli.options import DataDir
from tunesmith.cli.people import ALL, organization, show

app = typer.Typer(help="Projects of a data directory.", no_args_is_help=True)

ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", help="As `projects list` shows it.")]


@app.command()
def create(name: Annotated[str, typer.Argument()], data: DataDir = None) -> None:
    """Make a project."""
    row = organization(data).create_project(name)
    print(f"{row.id} ({row.name}). `tunesmith keys create --project {row.id}` makes a key for it.")


@app.command(name="list")
def list_projects(data: DataDir = None) -> None:
    """All projects, archived ones too."""
    from tunesmith.store.repo import projects

    with organization(data).db.read() as conn:
        rows = projects.page(conn, limit=ALL, include_archived=True).rows
    shown = [
        (row.id, row.name, when(row.created_at), f"archived {when(row.archived_at)}")
        if row.archived_at
        else (row.id, row.name, when(row.created_at), "active")
        for row in rows
    ]
    show(("id", "name", "created", "state"), shown)


@app.command()
def rename(
    project: ProjectId, name: Annotated[str, typer.Argument()], data: DataDir = None
) -> None:
    """Give a project another name. Its id stays."""
    print(f"{project} is now called {organization(data).rename_project(project, name).name}.")


@app.command()
def archive(project: ProjectId, data: DataDir = None) -> None:
    """End all keys of a project for good. What it holds stays on disk."""
    organization(data).archive_project(project)
    print(f"{project} is archived: its keys open nothing any more.")
