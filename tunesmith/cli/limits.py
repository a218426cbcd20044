"""`tunesmith limits`: what projects may ask for, and what they and their keys may spend.

A running server goes by a change within a second.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.money import decimals
from tunesmith.cli.options import DataDir, existing_store
from tunesmith.cli.people import organization
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import screen

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = typer.Typer(help="Rate limits and spend limits of projects.", no_args_is_help=True)

Amount = Annotated[
    str | None,
    typer.Option(help="A number, none (no limit) or default.", show_default=False),
]
ProjectId = Annotated[str, typer.Option("--project", help="Its id.")]


@app.command()
def show(project: ProjectId = "proj_default", data: DataDir = None) -> None:
    """Limits of a project by base, and this month's spending against its limit."""
    from rich.table import Table

    from tunesmith.api.books import read_books
    from tunesmith.ids import SystemClock
    from tunesmith.store.repo import bases
    from tunesmith.store.repo.usage import month_of
    from tunesmith.tariff import to_dollars

    settings, db = existing_store(data)
    now = int(SystemClock().now())
    books = read_books(db, settings, now)
    with db.read() as conn:
        names = [base.name for base in bases.list_all(conn)]
    columns = ("requests_per_minute", "requests_per_day", "tokens_per_minute", "jobs_per_day")
    table = Table("base", *(name.replace("_", " ") for name in columns), box=None, pad_edge=False)
    for name in names:
        found = [books.limit(project, name, column) for column in columns]
        table.add_row(name, *("no limit" if limit is None else f"{limit:,}" for limit in found))
    screen().print(table)
    month = month_of(now)
    budgets = books.budgets
    for owner in sorted({project, *budgets.own}):
        limit = budgets.project(owner) if owner == project else budgets.key(owner)
        spent = to_dollars(books.spent.get(f"{owner}:{month}", 0))
        of = "no limit" if limit is None else f"of USD {to_dollars(limit):,.2f}"
        print(f"{owner}: USD {spent:,.{decimals([spent])}f} in {month}, {of}")
    db.close()


@app.command(name="set")
def set_(
    base: Annotated[str, typer.Argument(metavar="BASE", help="As `base list` shows it.")],
    project: ProjectId = "proj_default",
    requests_per_minute: Amount = None,
    requests_per_day: Amount = None,
    tokens_per_minute: Amount = None,
    jobs_per_day: Amount = None,
    data: DataDir = None,
) -> None:
    """Change limits of a project on a base; models tuned on it draw on the same."""
    from dataclasses import replace

    from tunesmith.roster import find_project
    from tunesmith.store.repo import bases, limits

    given = {
        "requests_per_minute": requests_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_minute": tokens_per_minute,
        "jobs_per_day": jobs_per_day,
    }
    changes = {name: _number(name, text) for name, text in given.items() if text is not None}
    if not changes:
        raise CommandFailed("Say what to change, such as --requests-per-minute 60.")
    _, db = existing_store(data)
    with db.write() as conn:
        find_project(conn, project)
        found = bases.resolve(conn, base)
        if found is None:
            raise CommandFailed(f"No base {base}. `tunesmith base list` shows all.")
        known = limits.get_rates(conn, project, found.name)
        limits.set_rates(conn, project, found.name, replace(known, **changes))
        _record(conn, "rate_limit.updated", f"rl-{found.name}", changes, project)
    db.close()
    print(f"{project} on {found.name}: " + ", ".join(f"{name} {given[name]}" for name in changes))


@app.command()
def spend(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Id of a project or a key.")],
    amount: Annotated[str, typer.Argument(metavar="USD", help="A month, or default.")],
    data: DataDir = None,
) -> None:
    """Set what a project or a key may spend in a calendar month (UTC)."""
    from tunesmith.store.repo import keys
    from tunesmith.tariff import to_nanos

    found = organization(data)
    nanos = None if amount == "default" else to_nanos(_dollars(amount))
    with found.db.read() as conn:
        key = next((each for each in keys.list_all(conn) if each.id == owner), None)
    found.limit_spending((key and key.project_id) or owner, owner, nanos)
    print(f"{owner}: {'as the settings say' if nanos is None else f'USD {amount} a month'}")


def _record(
    conn: Connection, action: str, object_id: str, changes: dict[str, Any], project_id: str | None
) -> None:
    from tunesmith.ids import SystemClock, SystemRng
    from tunesmith.store.repo import audit_log

    audit_log.record(
        conn,
        SystemRng(),
        int(SystemClock().now()),
        None,
        action,
        object_id,
        {"changes_requested": changes},
        project_id=project_id,
    )


def _number(name: str, text: str) -> int | None:
    from tunesmith.store.repo.limits import NO_LIMIT

    if text in ("none", "default"):
        return NO_LIMIT if text == "none" else None
    if not (text.isascii() and text.isdigit() and int(text) < NO_LIMIT):
        raise CommandFailed(f"--{name.replace('_', '-')} {text}: give a number, none or default.")
    return int(text)


def _dollars(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal(-1)
    if not (found.is_finite() and 0 <= found <= 10**9):
        raise CommandFailed(f"{text} is no amount of US dollars; give one, or default.")
    return found
