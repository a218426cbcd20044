"""A data file before a moderator: which rows are flagged, for what, within bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.data.checks.view import view
from tunesmith.data.formats import Limits
from tunesmith.data.kinds import row_kind
from tunesmith.data.raw import RawRow, read_raw
from tunesmith.moderation.verdict import CATEGORIES, Moderator, Verdict

# Rows that wait to be judged together hold no more.
BATCH_CHARS = 1 << 20


@dataclass(frozen=True)
class Flag:
    """A row that falls under one category or more."""

    row: int
    """Its place among the rows, from 1."""
    line: int
    scores: dict[str, float]
    """Of the categories it is flagged for: the highest of its texts."""


@dataclass
class Count:
    """What a screening found; complete when it has ended."""

    num_rows: int = 0
    num_flagged: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    """Rows by category."""

    def add(self, flag: Flag) -> None:
        self.num_flagged += 1
        self.categories.update(flag.scores.keys())


def screen(
    path: Path,
    moderator: Moderator,
    count: Count,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Flag]:
    """The flagged rows of a file in order; all that a person may have written is judged.

    A line that cannot be read is passed over: other checks name it. `progress` is told how many
    bytes have been read. Raises ModerationError.
    """
    waiting: list[tuple[RawRow, int]] = []
    texts: list[str] = []
    num_chars = 0
    for row in read_raw(path, limits=limits or Limits()):
        found = row_texts(row)
        if not found:
            continue
        count.num_rows += 1
        waiting.append((RawRow(row.number, row.line, b"", None), len(found)))
        texts += found
        num_chars += sum(map(len, found))
        if len(texts) >= moderator.max_texts or num_chars >= BATCH_CHARS:
            yield from _flags(waiting, moderator.judge(texts), count)
            waiting, texts, num_chars = [], [], 0
            if progress:
                progress(row.offset)
    yield from _flags(waiting, moderator.judge(texts) if texts else [], count)


def in_order(categories: Counter[str]) -> dict[str, int]:
    """Rows by category, as the published list goes."""
    return {name: categories[name] for name in CATEGORIES if categories[name]}


def row_texts(row: RawRow) -> list[str]:
    if not isinstance(row.value, dict):
        return []
    seen = view(row.value, row_kind(row.value))
    return [] if seen is None else [text for text in (*seen.texts, seen.rejected) if text]


def _flags(rows: list[tuple[RawRow, int]], verdicts: list[Verdict], count: Count) -> Iterator[Flag]:
    start = 0
    for row, num_texts in rows:
        scores: dict[str, float] = {}
        for verdict in verdicts[start : start + num_texts]:
            for name in verdict.flagged:
                scores[name] = max(scores.get(name, 0.0), verdict.scores[name])
        start += num_texts
        if scores:
            flag = Flag(row.number, row.line, scores)
            count.add(flag)
            yield flag
