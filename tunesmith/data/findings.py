"""What a single finding says."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunesmith.data.codes import CODES, SEVERITIES, Severity


@dataclass(frozen=True)
class Finding:
    """One thing found, with every row that has it."""

    code: str
    severity: Severity
    rows: array[int]
    """Example numbers, from 1, in order; empty where the finding is about the whole file. Four
    bytes each: a million rows may have it."""
    lines: array[int]
    """The line of each of `rows`; differs from it after blank lines."""
    message: str
    """Quotes no text of the rows, so it may be logged and shown."""
    effect: str
    fix: str
    repairable: bool

    def to_json(self, max_rows: int | None = None) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "num_rows": len(self.rows),
            "rows": list(self.rows[:max_rows]),
            "lines": list(self.lines[:max_rows]),
            "message": self.message,
            "effect": self.effect,
            "fix": self.fix,
            "repairable": self.repairable,
        }


def finding(
    name: str, message: str, rows: Iterable[int] = (), lines: Iterable[int] = ()
) -> Finding:
    """A finding with the severity, effect and fix that the table gives its code."""
    info = CODES[name]
    return Finding(
        name,
        info.severity,
        array("I", rows),
        array("I", lines),
        message,
        info.effect,
        info.fix,
        info.repairable,
    )


def by_weight(found: Iterable[Finding]) -> list[Finding]:
    """The most serious first; among equals the order of the table."""
    places = {name: place for place, name in enumerate(CODES)}
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), places[each.code]))
