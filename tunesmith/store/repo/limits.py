"""What projects may ask for: rates by project and base, and money by project or key."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tunesmith.store.repo.rows import columns_of
from tunesmith.store.tables import rate_limits, spend_limits

# More than can be reached: how the public API, which knows only numbers, says "no limit".
NO_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class RateLimit:
    """None: as the settings say. 0: nothing may pass. NO_LIMIT: everything may."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    jobs_per_day: int | None = None


_COLUMNS = columns_of(RateLimit, rate_limits)


def get_rates(conn: sa.Connection, project_id: str, base: str) -> RateLimit:
    query = sa.select(*_COLUMNS).where(
        rate_limits.c.project_id == project_id, rate_limits.c.base == base
    )
    row = conn.execute(query).first()
    return RateLimit() if row is None else RateLimit(**row._mapping)


def all_rates(conn: sa.Connection) -> dict[tuple[str, str], RateLimit]:
    """By (project, base)."""
    names = {column.name for column in _COLUMNS}
    found = {}
    for row in conn.execute(sa.select(rate_limits)):
        values = {name: value for name, value in row._mapping.items() if name in names}
        found[row.project_id, row.base] = RateLimit(**values)
    return found


def set_rates(conn: sa.Connection, project_id: str, base: str, limit: RateLimit) -> None:
    """Replaces what was set; a limit that says nothing leaves no row."""
    where = (rate_limits.c.project_id == project_id, rate_limits.c.base == base)
    conn.execute(sa.delete(rate_limits).where(*where))
    if limit != RateLimit():
        conn.execute(sa.insert(rate_limits).values(project_id=project_id, base=base, **vars(limit)))


def all_budgets(conn: sa.Connection) -> dict[str, int]:
    """Nano-dollars a month, by id of a project or key."""
    rows = conn.execute(sa.select(spend_limits.c.owner, spend_limits.c.nanos_per_month))
    return {row.owner: row.nanos_per_month for row in rows}


def set_budget(conn: sa.Connection, owner: str, nanos_per_month: int | None) -> None:
    """None takes the limit away."""
    conn.execute(sa.delete(spend_limits).where(spend_limits.c.owner == owner))
    if nanos_per_month is not None:
        conn.execute(sa.insert(spend_limits).values(owner=owner, nanos_per_month=nanos_per_month))
