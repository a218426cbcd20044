"""Who used what: sums by the minute, and what each project and key has spent in a month.

Rows only grow: each write adds what is new, so several processes add to the same row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as upsert

from tunesmith.store.tables import spending, usage

Kind = Literal["completions", "embeddings", "moderations", "training"]
Field = Literal["project_id", "user_id", "key_id", "model", "kind", "service_tier"]


class UsageKey(NamedTuple):
    """What sums are kept apart by; "" stands for none."""

    minute: int
    """Its first second."""
    project_id: str
    key_id: str
    user_id: str
    model: str
    """As the request named it; of training, the base."""
    base: str
    """The registered base whose limits it draws on."""
    kind: Kind
    service_tier: str = "default"


@dataclass(slots=True)
class Counts:
    num_requests: int = 0
    input_tokens: int = 0
    """Cached ones included; of training, the trained ones."""
    cached_tokens: int = 0
    output_tokens: int = 0
    machine_s: int = 0
    input_nanos: int = 0
    """Of the tokens that were not cached; of training, of the trained ones. Nano-dollars."""
    cached_nanos: int = 0
    output_nanos: int = 0
    machine_nanos: int = 0

    def add(self, other: Counts) -> None:
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def nanos(self) -> int:
        return self.input_nanos + self.cached_nanos + self.output_nanos + self.machine_nanos


COUNTED = tuple(field.name for field in fields(Counts))


@dataclass(frozen=True)
class Total:
    """A sum within one bucket; grouping fields that were not asked for are None."""

    bucket: int
    """Start of the bucket, seconds; before clipping to what was asked for."""
    group: dict[str, str]
    counts: Counts


def month_of(at: int) -> str:
    """ "2026-11", UTC."""
    return time.strftime("%Y-%m", time.gmtime(at))


def add(conn: sa.Connection, rows: Iterable[tuple[UsageKey, Counts]]) -> None:
    """Adds to the sums, and to what the projects and keys have spent in the month."""
    spent: dict[tuple[str, str], int] = {}
    for key, counts in rows:
        values = {name: getattr(counts, name) for name in COUNTED}
        statement = upsert(usage).values(**key._asdict(), **values)
        grown = {name: usage.c[name] + statement.excluded[name] for name in COUNTED}
        conn.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=grown))
        for owner in filter(None, (key.project_id, key.key_id)):
            place = (owner, month_of(key.minute))
            spent[place] = spent.get(place, 0) + counts.nanos
    for (owner, month), nanos in spent.items():
        if nanos:
            spend = upsert(spending).values(owner=owner, month=month, nanos=nanos)
            more = {"nanos": spending.c.nanos + spend.excluded.nanos}
            conn.execute(spend.on_conflict_do_update(index_elements=["owner", "month"], set_=more))


_KEY = list(UsageKey._fields)


def spent_in(conn: sa.Connection, month: str) -> dict[str, int]:
    """Nano-dollars by project and key."""
    query = sa.select(spending.c.owner, spending.c.nanos).where(spending.c.month == month)
    return {row.owner: row.nanos for row in conn.execute(query)}


def requests_since(conn: sa.Connection, start: int) -> dict[tuple[str, str], int]:
    """Answered requests by (project, base), from the minute that holds `start` on."""
    query = (
        sa.select(usage.c.project_id, usage.c.base, sa.func.sum(usage.c.num_requests))
        .where(usage.c.minute >= start - start % 60, usage.c.kind != "training")
        .group_by(usage.c.project_id, usage.c.base)
    )
    return {(row[0], row[1]): row[2] for row in conn.execute(query)}


def totals(
    conn: sa.Connection,
    *,
    kinds: Sequence[Kind],
    start: int,
    end: int,
    width: int,
    group_by: Sequence[Field] = (),
    only: dict[Field, list[str]] | None = None,
) -> list[Total]:
    """Sums by bucket and group, in that order, of the minutes that begin in [start, end)."""
    bucket = (usage.c.minute - usage.c.minute % width).label("bucket")
    groups = [usage.c[name] for name in group_by]
    sums = [sa.func.sum(usage.c[name]).label(name) for name in COUNTED]
    query = sa.select(bucket, *groups, *sums).where(
        usage.c.minute >= start, usage.c.minute < end, usage.c.kind.in_(kinds)
    )
    for name, values in (only or {}).items():
        query = query.where(usage.c[name].in_(values))
    query = query.group_by(bucket, *groups).order_by(bucket, *groups)
    return [
        Total(
            bucket=row.bucket,
            group={name: row._mapping[name] for name in group_by},
            counts=Counts(**{name: row._mapping[name] for name in COUNTED}),
        )
        for row in conn.execute(query)
    ]
