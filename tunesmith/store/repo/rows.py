"""From database rows to frozen records, and pages of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from tunesmith.errors import BadRequest

Record = TypeVar("Record")


@dataclass(frozen=True)
class Page(Generic[Record]):
    rows: list[Record]
    has_more: bool


def columns_of(record: type[Any], table: sa.Table) -> list[sa.Column[Any]]:
    """The table's columns that a record has fields for."""
    return [table.c[field.name] for field in dataclasses.fields(record)]


def build(record: type[Record], row: sa.Row[Any]) -> Record:
    return record(**row._mapping)


def fetch_page(
    conn: sa.Connection,
    record: type[Record],
    query: sa.Select[Any],
    order: sa.Column[Any],
    *,
    cursor: int | None,
    limit: int,
    newest_first: bool = True,
) -> Page[Record]:
    """`limit` rows after the one whose `order` value is the cursor (None = from the start)."""
    if cursor is not None:
        query = query.where(order < cursor if newest_first else order > cursor)
    query = query.order_by(order.desc() if newest_first else order.asc()).limit(limit + 1)
    rows = [build(record, row) for row in conn.execute(query)]
    return Page(rows[:limit], has_more=len(rows) > limit)


def find_cursor(
    conn: sa.Connection,
    order: sa.Column[Any],
    id_column: sa.Column[Any],
    after: str | None,
    within: sa.ColumnElement[bool],
) -> int | None:
    """Where a list goes on. Raises BadRequest for an id that is not there.

    `within` is what bounds the list: an id outside it is as unknown as any other.
    """
    if after is None:
        return None
    found = conn.execute(sa.select(order).where(id_column == after, within)).scalar()
    if found is None:
        raise BadRequest(f"No such object to continue after: {after}", param="after")
    return int(found)
