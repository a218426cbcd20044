"""`tunesmith usage`: who used what, and what it cost, as a table or as CSV."""

from __future__ import annotations

import csv
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.money import decimals
from tunesmith.cli.options import DataDir, existing_store
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import screen

if TYPE_CHECKING:
    from tunesmith.store.repo.usage import Field, Total

DAY_S = 86400
# Option -> column.
GROUPS: dict[str, Field] = {
    "project": "project_id",
    "key": "key_id",
    "user": "user_id",
    "model": "model",
    "kind": "kind",
}
COUNTS = ("requests", "input", "cached", "output", "trained", "machine_hours", "usd")


def usage(
    days: Annotated[int, typer.Option(min=1, help="So many days back, today included (UTC).")] = 30,
    by: Annotated[
        str,
        typer.Option(help=f"Columns to group by: day, {', '.join(GROUPS)}; with commas."),
    ] = "project,model,kind",
    csv_: Annotated[bool, typer.Option("--csv", help="As CSV, for spreadsheets.")] = False,
    data: DataDir = None,
) -> None:
    """Requests, tokens and cost of a data directory, from its database."""
    groups = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in groups if name != "day" and name not in GROUPS]
    if unknown:
        raise CommandFailed(f"--by {unknown[0]}: give day, {', '.join(GROUPS)}.")
    rows = _rows(_totals(data, days, groups), groups)
    if csv_:
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow([*groups, *COUNTS])
        table.writerows(rows)
        return
    _show(rows, groups, days)


def _totals(data: DataDir, days: int, groups: list[str]) -> list[Total]:
    from tunesmith.ids import SystemClock
    from tunesmith.store.repo import usage

    _, db = existing_store(data)
    end = int(SystemClock().now()) + 1
    today = end - end % DAY_S
    start = today - (days - 1) * DAY_S
    with db.read() as conn:
        found = usage.totals(
            conn,
            kinds=("completions", "embeddings", "moderations", "training"),
            start=start,
            end=end,
            # One bucket of all, or one for each day.
            width=DAY_S if "day" in groups else 2**40,
            group_by=[GROUPS[name] for name in dict.fromkeys((*groups, "kind")) if name in GROUPS],
        )
    db.close()
    return found


def _rows(totals: list[Total], groups: list[str]) -> list[list[str]]:
    """Trained tokens stand apart from those that models read."""
    from tunesmith.store.repo.usage import Counts
    from tunesmith.tariff import to_dollars

    sums: dict[tuple[str, ...], tuple[Counts, Counts]] = {}
    for total in totals:
        day = time.strftime("%Y-%m-%d", time.gmtime(total.bucket))
        place = tuple(day if name == "day" else total.group[GROUPS[name]] for name in groups)
        inferred, trained = sums.setdefault(place, (Counts(), Counts()))
        (trained if total.group["kind"] == "training" else inferred).add(total.counts)
    rows = []
    for place, (inferred, trained) in sorted(sums.items()):
        counts = (
            inferred.num_requests,
            inferred.input_tokens,
            inferred.cached_tokens,
            inferred.output_tokens,
            trained.input_tokens,
        )
        usd = to_dollars(inferred.nanos + trained.nanos)
        hours = f"{trained.machine_s / 3600:.4f}"
        rows.append([*place, *map(str, counts), hours, f"{usd:f}"])
    return rows


def _show(rows: list[list[str]], groups: list[str], days: int) -> None:
    from decimal import Decimal

    from rich.table import Table

    if not rows:
        print(f"Nothing was used in the last {days} days.")
        return
    num = len(groups)
    # What nobody used takes no room.
    shown = [
        place for place in range(len(COUNTS)) if any(Decimal(row[num + place]) for row in rows)
    ]
    table = Table(box=None, pad_edge=False)
    for name in groups:
        table.add_column(name, overflow="fold")
    for place in shown:
        table.add_column(COUNTS[place].replace("_", " "), justify="right", no_wrap=True)
    amounts = [Decimal(row[-1]) for row in rows]
    places = decimals(amounts)
    for row, amount in zip(rows, amounts, strict=True):
        counts = [f"{Decimal(cell):,}" for cell in row[num:-1]] + [f"{amount:,.{places}f}"]
        table.add_row(*row[:num], *(counts[place] for place in shown))
    screen().print(table)
    print(f"\n{days} days, USD {sum(amounts, Decimal(0)):,.{places}f}")
