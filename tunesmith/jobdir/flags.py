"""The rows that a job's moderator flagged: a line each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tunesmith.jobdir.layout import FLAGS_FILE
from tunesmith.jobdir.records import RecordError, from_json
from tunesmith.jobdir.spec import Param


@dataclass(frozen=True)
class FlaggedRow:
    file: Param
    row: int
    line: int
    scores: dict[str, float]
    """Of the categories it is flagged for."""


def read_flags(job_dir: Path, after: int, limit: int) -> tuple[list[FlaggedRow], bool]:
    """The flagged rows behind the first `after`, and whether there are more."""
    try:
        with (job_dir / FLAGS_FILE).open("rb") as lines:
            found = list(islice(lines, after, after + limit + 1))
        rows = [from_json(FlaggedRow, line) for line in found[:limit]]
    except (FileNotFoundError, RecordError):
        return [], False
    return rows, len(found) > limit
