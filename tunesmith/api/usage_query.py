"""What a question for usage or costs means: a range of time, its buckets, groups and filters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from tunesmith.api.services import Svc
from tunesmith.errors import BadRequest
from tunesmith.store.repo.usage import Field

Width = Literal["1m", "1h", "1d"]
# Seconds of a bucket, buckets of a page unless told otherwise, most buckets of a page.
WIDTHS: dict[Width, tuple[int, int, int]] = {
    "1m": (60, 60, 1440),
    "1h": (3600, 24, 168),
    "1d": (86400, 7, 31),
}
MAX_COST_BUCKETS = 180
# Far enough for every real clock, and small enough for every database.
MAX_TIME = 2**40
CURSOR = re.compile(r"page_([0-9]{1,13})")

# Public name -> column.
COLUMNS: dict[str, Field] = {
    "project_id": "project_id",
    "user_id": "user_id",
    "api_key_id": "key_id",
    "model": "model",
    "service_tier": "service_tier",
}
FILTERS: dict[str, Field] = {
    "project_ids": "project_id",
    "user_ids": "user_id",
    "api_key_ids": "key_id",
    "models": "model",
}


@dataclass(frozen=True)
class Range:
    """Of one page. Sums are kept by the minute, so a range begins with a whole one."""

    start: int
    end: int
    width_s: int
    num_buckets: int

    @property
    def page_end(self) -> int:
        first = self.start - self.start % self.width_s
        return min(self.end, first + self.num_buckets * self.width_s)

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """(key of its sums, start, end); the first and the last may be cut."""
        key = self.start - self.start % self.width_s
        while key < self.page_end:
            yield key, max(key, self.start), min(key + self.width_s, self.end)
            key += self.width_s

    @property
    def next_page(self) -> str | None:
        return f"page_{self.page_end}" if self.page_end < self.end else None


def read_range(
    start: int,
    end: int | None,
    width: Width,
    limit: int | None,
    page: str | None,
    *,
    now: int,
    most: int | None = None,
) -> Range:
    """Raises BadRequest for what makes no sense."""
    width_s, default, own_most = WIDTHS[width]
    most = own_most if most is None else most
    if limit is not None and not 1 <= limit <= most:
        raise BadRequest(
            f"Invalid 'limit': {limit}. With bucket_width={width} a page has 1 to {most} buckets.",
            param="limit",
            code="above_max_value" if limit > most else "below_min_value",
        )
    end = now + 1 if end is None else end
    for name, value in (("start_time", start), ("end_time", end)):
        if not 0 <= value <= MAX_TIME:
            raise BadRequest(
                f"Invalid '{name}': give seconds since 1970.", param=name, code="invalid_value"
            )
    if page is not None:
        found = CURSOR.fullmatch(page)
        if found is None or not start <= int(found[1]) <= MAX_TIME:
            raise BadRequest(
                "Invalid 'page': give the next_page of an answer to the same question.",
                param="page",
                code="invalid_value",
            )
        start = int(found[1])
    elif start >= end:
        raise BadRequest(
            "Invalid 'start_time': it must be before 'end_time'.",
            param="start_time",
            code="invalid_value",
        )
    return Range(start - start % 60, end, width_s, default if limit is None else limit)


def _usage_range(
    svc: Svc,
    start_time: int,
    end_time: int | None = None,
    bucket_width: Width = "1d",
    limit: int | None = None,
    page: str | None = None,
) -> Range:
    now = int(svc.clock.now())
    return read_range(start_time, end_time, bucket_width, limit, page, now=now)


def _cost_range(
    svc: Svc,
    start_time: int,
    end_time: int | None = None,
    bucket_width: Literal["1d"] = "1d",
    limit: int | None = None,
    page: str | None = None,
) -> Range:
    now = int(svc.clock.now())
    most = MAX_COST_BUCKETS
    return read_range(start_time, end_time, bucket_width, limit, page, now=now, most=most)


UsageRange = Annotated[Range, Depends(_usage_range)]
CostRange = Annotated[Range, Depends(_cost_range)]


def many(request: Request, name: str) -> list[str]:
    """An array in the query: `name[]=a&name[]=b`, as clients write it, or `name=a&name=b`."""
    query = request.query_params
    return [*query.getlist(name), *query.getlist(f"{name}[]")]


def groups(request: Request, allowed: Sequence[str]) -> list[str]:
    """Raises BadRequest for a field that cannot be grouped by."""
    asked = many(request, "group_by")
    for name in asked:
        if name not in allowed:
            raise BadRequest(
                f"Invalid value for 'group_by': '{name:.40}' is none of {', '.join(allowed)}.",
                param="group_by",
                code="invalid_value",
            )
    return list(dict.fromkeys(asked))


def filters(request: Request, names: Mapping[str, Field] = FILTERS) -> dict[Field, list[str]]:
    found = {column: many(request, name) for name, column in names.items()}
    return {column: values for column, values in found.items() if values}
