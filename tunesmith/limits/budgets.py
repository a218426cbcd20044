"""What a project and its keys may spend in a month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from tunesmith.tariff import to_nanos


@dataclass(frozen=True)
class Budgets:
    """Nano-dollars a month; None: no limit."""

    default: int | None
    """Of every project that has none of its own."""
    own: Mapping[str, int]
    """By id of a project or key."""

    @classmethod
    def of(cls, dollars: Decimal | None, own: Mapping[str, int]) -> Budgets:
        """`dollars`: the default, as the settings say it."""
        return cls(None if dollars is None else to_nanos(dollars), own)

    def project(self, project_id: str) -> int | None:
        return self.own.get(project_id, self.default)

    def key(self, key_id: str) -> int | None:
        return self.own.get(key_id)

    def both(self, project_id: str, key_id: str | None) -> list[tuple[str, int]]:
        """(owner, budget) of the project and of the key, where they have one."""
        found = [(project_id, self.project(project_id))]
        if key_id is not None:
            found.append((key_id, self.key(key_id)))
        return [(owner, nanos) for owner, nanos in found if nanos is not None]
