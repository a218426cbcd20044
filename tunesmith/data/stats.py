"""Numbers about a data file that fit on a screen: how long, how many turns, which answers."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data.messages import Message
from tunesmith.data.rows import PromptRow, Row, texts

# An answer that is a label is short, and each label comes back.
MAX_LABEL_CHARS = 64
MAX_LABELS = 200
MIN_ROWS_PER_LABEL = 3
NUM_BINS = 12
# Widths of bins that people can read.
STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Bin:
    low: int
    high: int
    """Included."""
    count: int


def histogram(values: Sequence[int], num_bins: int = NUM_BINS) -> list[Bin]:
    """Counts in at most `num_bins` bins of one round width; the last holds the long tail too."""
    if not values:
        return []
    low, high = min(values), max(values)
    ordered = sorted(values)
    # A few giants would press all others into one bin.
    usual = max(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], low + 1)
    top = usual if high > 2 * usual else high
    width = _round_width((top - low + 1) / num_bins)
    start = low // width * width
    num = min(num_bins, (top - start) // width + 1)
    counts = [0] * num
    for value in values:
        counts[min(num - 1, (value - start) // width)] += 1
    ends = [start + (place + 1) * width - 1 for place in range(num)]
    ends[-1] = max(ends[-1], high)
    return [Bin(start + place * width, ends[place], count) for place, count in enumerate(counts)]


def _round_width(least: float) -> int:
    power = int(10 ** max(0, math.floor(math.log10(max(1, least)))))
    widths = [step * power for step in (*STEPS, 10)]
    return next(width for width in widths if width >= least)


def label_of(row: Any) -> str | None:
    """The last answer of a row, if it is short enough to be a label."""
    messages = row.get("messages") if isinstance(row, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant" or last.get("tool_calls"):
        return None
    content = last.get("content")
    return content if isinstance(content, str) and len(content) <= MAX_LABEL_CHARS else None


def labels(counts: Counter[str], num_rows: int) -> Counter[str] | None:
    """The counts, if they are those of labels: few, and nearly all rows have one of them."""
    repeated = Counter({label: num for label, num in counts.items() if num >= MIN_ROWS_PER_LABEL})
    if not 2 <= len(repeated) <= MAX_LABELS or repeated.total() < 0.9 * num_rows:
        return None
    return repeated


@dataclass
class Stats:
    """Adds up rows; a few bytes a row are kept."""

    num_rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    turns: array[int] = field(default_factory=lambda: array("L"))
    """Messages of the user and the assistant in each row."""
    tokens: array[int] = field(default_factory=lambda: array("L"))
    answer_chars: array[int] = field(default_factory=lambda: array("L"))
    """Of pairs, the preferred answers."""
    rejected_chars: array[int] = field(default_factory=lambda: array("L"))
    trained: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    systems: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    """What stands beside prompts, by its path: in how many rows."""
    num_with_tools: int = 0
    num_not_rendered: int = 0
    """Rows whose tokens could not be counted."""

    def add(self, row: Row, num_tokens: int | None, num_trained: int) -> None:
        """Counts a row; `num_tokens` is None where it cannot be rendered."""
        self.num_rows += 1
        if isinstance(row, PromptRow):
            self.kinds[row.kind] += 1
            self._add_prompt(row)
        else:
            self.kinds["chat"] += 1
            self.answer_chars.extend(len(text) for text in _contents(row.messages, "assistant"))
            self._add_label(label_of({"messages": row.messages}))
        roles = [message["role"] for message in row.messages]
        self.roles.update(roles)
        self.turns.append(sum(role in ("user", "assistant") for role in roles))
        self.num_with_tools += bool(row.tools)
        self.systems.update(_contents(row.messages, "system", "developer"))
        if num_tokens is None:
            self.num_not_rendered += 1
        else:
            self.tokens.append(num_tokens)
            self.trained += num_trained

    def _add_prompt(self, row: PromptRow) -> None:
        self.fields.update({name.partition("[")[0] for name, _ in texts(row.fields)})
        for name, lengths in (("preferred", self.answer_chars), ("rejected", self.rejected_chars)):
            if name in row.answers:
                lengths.append(len(row.answers[name]["content"]))
        if row.kind == "completions":
            completion = row.fields["completion"]
            self.answer_chars.append(len(completion))
            self._add_label(completion if len(completion) <= MAX_LABEL_CHARS else None)

    def _add_label(self, label: str | None) -> None:
        if label is not None and (label in self.answers or len(self.answers) < 10 * MAX_LABELS):
            self.answers[label] += 1

    @property
    def labels(self) -> Counter[str] | None:
        return labels(self.answers, self.num_rows)


def balance(counts: Iterable[int]) -> float:
    """Entropy of labels over its maximum: 1 is evenly spread, 0 is one label only."""
    numbers = [count for count in counts if count]
    if len(numbers) < 2:
        return 0.0
    total = sum(numbers)
    entropy = -sum(count / total * math.log(count / total) for count in numbers)
    return entropy / math.log(len(numbers))


def _contents(messages: list[Message], *roles: str) -> list[str]:
    return [message["content"] for message in messages if message["role"] in roles]
