"""`tunesmith data check --moderation`: the rows that a job's moderator would flag."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cli.data_base import reading
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import say

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.moderation.screening import Flag

MAX_KEPT = 1000
SHOWN_ROWS = 20


@dataclass(frozen=True)
class Moderated:
    """What the moderator said of one file."""

    path: Path
    model: str
    num_rows: int
    num_flagged: int
    categories: dict[str, int]
    flags: list[Flag]
    """The first."""
    fail_share: float

    @property
    def fails(self) -> bool:
        return self.num_flagged > self.fail_share * self.num_rows

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.path.name,
            "model": self.model,
            "num_rows": self.num_rows,
            "num_flagged": self.num_flagged,
            "fails": self.fails,
            "categories": self.categories,
            "rows": [asdict(flag) for flag in self.flags],
        }

    def show(self, console: Console) -> None:
        say(console, f"{self.path.name}: moderation by {self.model}", "bold")
        if not self.num_flagged:
            say(console, f"None of {self.num_rows:,} rows is flagged.\n", "green")
            return
        counts = ", ".join(f"{name} {num:,}" for name, num in self.categories.items())
        say(console, f"{self.num_flagged:,} of {self.num_rows:,} rows are flagged: {counts}")
        for flag in self.flags[:SHOWN_ROWS]:
            scores = ", ".join(f"{name} {score:.2f}" for name, score in flag.scores.items())
            say(console, f"  row {flag.row:,} (line {flag.line:,}): {scores}")
        if self.num_flagged > SHOWN_ROWS:
            say(console, f"  and {self.num_flagged - SHOWN_ROWS:,} more; --json names them")
        if self.fails:
            say(
                console,
                f"A job would fail: more than {self.fail_share:.0%} are flagged "
                "(TUNESMITH_MODERATION_FAIL_SHARE).",
                "red",
            )
        say(console)


def moderated(path: Path, show: bool) -> Moderated:
    """Judges every row by the moderator of the settings. Raises CommandFailed if it is off."""
    from tunesmith.config import load_settings
    from tunesmith.moderation.choice import of_settings
    from tunesmith.moderation.screening import Count, in_order, screen

    settings = load_settings()
    judge = of_settings(settings)
    if judge is None:
        raise CommandFailed("Moderation is turned off (TUNESMITH_MODERATION).")
    count = Count()
    kept: list[Flag] = []
    with reading(path, "Moderating", show) as progress:
        size = path.stat().st_size
        for flag in screen(path, judge, count, progress=lambda num: progress(num, size)):
            if len(kept) < MAX_KEPT:
                kept.append(flag)
    return Moderated(
        path,
        judge.model,
        count.num_rows,
        count.num_flagged,
        in_order(count.categories),
        kept,
        settings.moderation_fail_share,
    )
