"""What the limits are and what has been spent, as one process knows it: read twice a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.config import Settings
from tunesmith.limits.bucket import Pool
from tunesmith.limits.budgets import Budgets
from tunesmith.store.db import Database
from tunesmith.store.repo import job_costs, limits, usage
from tunesmith.store.repo.limits import RateLimit

# Kind of a pool -> (the limit's name, seconds in which it fills up).
POOLS = {
    "rpm": ("requests_per_minute", 60.0),
    "rpd": ("requests_per_day", 86400.0),
    "tpm": ("tokens_per_minute", 60.0),
}


@dataclass(frozen=True)
class Books:
    defaults: RateLimit
    rates: Mapping[tuple[str, str], RateLimit]
    """Those of (project, base) that differ from the defaults."""
    budgets: Budgets
    spent: Mapping[str, int]
    """By "owner:month": written down, or reserved by jobs that have not ended; nano-dollars."""
    _pools: dict[tuple[str, str], list[Pool]] = field(default_factory=dict)

    def limit(self, project_id: str, base: str, name: str) -> int | None:
        """A limit by its name; None where there is none."""
        own = getattr(self.rates.get((project_id, base)), name, None)
        found: int | None = getattr(self.defaults, name) if own is None else own
        return None if found == limits.NO_LIMIT else found

    def pools(self, project_id: str, base: str) -> list[Pool]:
        """Those that have an end."""
        known = self._pools.get((project_id, base))
        if known is None:
            known = self._pools[project_id, base] = [
                Pool(f"{kind}:{project_id}:{base}", size, period_s)
                for kind, (name, period_s) in POOLS.items()
                if (size := self.limit(project_id, base, name)) is not None
            ]
        return known


def read_books(db: Database, settings: Settings, now: int) -> Books:
    month = usage.month_of(now)
    with db.read() as conn:
        rates = limits.all_rates(conn)
        budgets = Budgets.of(settings.spend_per_month, limits.all_budgets(conn))
        spent = usage.spent_in(conn, month)
        reserved = job_costs.reserved(conn)
    owners = spent.keys() | reserved.keys()
    return Books(
        defaults=RateLimit(
            requests_per_minute=settings.requests_per_minute,
            requests_per_day=settings.requests_per_day,
            tokens_per_minute=settings.tokens_per_minute,
            jobs_per_day=settings.jobs_per_day,
        ),
        rates=rates,
        budgets=budgets,
        spent={
            f"{owner}:{month}": spent.get(owner, 0) + reserved.get(owner, 0) for owner in owners
        },
    )
