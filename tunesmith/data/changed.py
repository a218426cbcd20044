"""Files made from another one: its repair, its two parts. What was done comes back as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.repair import DEFAULT, REPAIRS, Change, Repaired, repair
from tunesmith.data.split import split

MAX_CHANGES = 200
MAX_TEXT_CHARS = 4000


@dataclass(frozen=True)
class FixRequest:
    path: str
    codes: tuple[str, ...] | None = None
    """Which repairs; None: those that are safe."""
    target: str | None = None
    """The repaired file; None: nothing is written."""


def fix(request: FixRequest) -> dict[str, Any]:
    """The first changes, how often each repair was done, and what every repair does."""
    chosen = DEFAULT if request.codes is None else frozenset(request.codes)
    result = Repaired()
    changes: list[dict[str, Any]] = []
    num_changes = 0
    target = Path(request.target).open("wb") if request.target else None  # noqa: SIM115
    try:
        for change in repair(Path(request.path), target, chosen, result):
            num_changes += 1
            if len(changes) < MAX_CHANGES:
                changes.append(_shown(change))
    finally:
        if target:
            target.close()
    return {
        "num_rows": result.num_rows,
        "num_changes": num_changes,
        "num_left_out": result.num_left_out,
        "num_unreadable": result.num_unreadable,
        "codes": result.codes,
        "changes": changes,
        "repairs": {code: asdict(each) for code, each in REPAIRS.items()},
    }


def _shown(change: Change) -> dict[str, Any]:
    before, after = change.before, change.after
    return {
        "line": change.line,
        "codes": list(change.codes),
        "before": before[:MAX_TEXT_CHARS],
        "after": None if after is None else after[:MAX_TEXT_CHARS],
        "is_cut": max(len(before), len(after or "")) > MAX_TEXT_CHARS,
    }


@dataclass(frozen=True)
class SplitRequest:
    path: str
    ratio: float
    seed: int
    train: str
    valid: str
    """Where the two parts are written."""


def divide(request: SplitRequest) -> dict[str, Any]:
    """Writes the two parts. Raises SplitError."""
    train, valid = Path(request.train), Path(request.valid)
    done = split(Path(request.path), train, valid, ratio=request.ratio, seed=request.seed)
    return {
        **asdict(done),
        "train_bytes": train.stat().st_size,
        "valid_bytes": valid.stat().st_size,
    }
