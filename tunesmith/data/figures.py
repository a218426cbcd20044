"""The figures of OpenAI's data preparation notebook, under the same names.

The notebook is from 2023: it counts tools, developer messages and null content as errors, which
today they are not. Its numbers are kept, and how many of them are no error today stands beside.
What it prints as "p5 / p95" are the 10th and the 90th percentile; here they are called so.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.data.messages import KNOWN_KEYS, ROLES
from tunesmith.data.openai_tokens import load_encoding, num_answer_tokens, num_row_tokens

NOTEBOOK_KEYS = {"role", "content", "name", "function_call", "weight"}
NOTEBOOK_ROLES = {"system", "user", "assistant", "function"}
DEFAULT_ENCODING = "cl100k_base"
ERROR_NAMES = (
    "data_type",
    "missing_messages_list",
    "message_missing_key",
    "message_unrecognized_key",
    "unrecognized_role",
    "missing_content",
    "example_missing_assistant_message",
)


@dataclass(frozen=True)
class Distribution:
    """Of a number that every example has; percentiles by linear interpolation."""

    min: int
    max: int
    mean: float
    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[int]) -> Distribution | None:
        """None of no values."""
        if not len(values):
            return None
        numbers = np.asarray(values)
        low, median, high = map(float, np.percentile(numbers, (10, 50, 90)))
        ends = int(numbers.min()), int(numbers.max())
        return cls(*ends, float(numbers.mean()), median, low, high)


@dataclass(frozen=True)
class Figures:
    """What the notebook prints about a file."""

    errors: dict[str, int]
    """Its counts by kind; only those above 0, in its order."""
    valid_today: dict[str, int]
    """How many of them the API takes today, by kind."""
    num_missing_system: int
    num_missing_user: int
    num_messages_per_example: Distribution | None
    num_total_tokens_per_example: Distribution | None
    num_assistant_tokens_per_example: Distribution | None
    num_tokens: int
    """Of all examples together, by the notebook's rule."""
    encoding: str

    @property
    def verdict(self) -> str:
        """In the notebook's words."""
        return "Found errors:" if self.errors else "No errors found"


@dataclass
class FigureCounter:
    """Adds up figures row by row; a few bytes a row are kept, for the percentiles."""

    kind: str = "chat"
    """Of the rows; the notebook knows chat only, of others just tokens are counted."""
    encodings: tuple[str, ...] = ()
    """Of `openai_tokens.ENCODINGS`; none: tokens are not counted."""
    errors: Counter[str] = field(default_factory=Counter)
    valid_today: Counter[str] = field(default_factory=Counter)
    num_missing_system: int = 0
    num_missing_user: int = 0
    num_messages: array[int] = field(default_factory=lambda: array("I"))
    num_tokens: array[int] = field(default_factory=lambda: array("I"))
    num_assistant_tokens: array[int] = field(default_factory=lambda: array("I"))
    totals: Counter[str] = field(default_factory=Counter)
    """Tokens of all rows by encoding."""

    def add(self, row: Any) -> None:
        """Counts a parsed line, whatever it holds."""
        if self.kind == "chat":
            self._add_chat(row)
        elif isinstance(row, dict):
            self._add_tokens(row)

    def join(self, other: FigureCounter) -> None:
        """Adds what was counted of the rows that follow."""
        for name in ("errors", "valid_today", "totals"):
            getattr(self, name).update(getattr(other, name))
        for name in ("num_messages", "num_tokens", "num_assistant_tokens"):
            getattr(self, name).extend(getattr(other, name))
        self.num_missing_system += other.num_missing_system
        self.num_missing_user += other.num_missing_user

    def figures(self) -> Figures | None:
        """None of rows that are no conversations."""
        if self.kind != "chat":
            return None
        return Figures(
            {name: self.errors[name] for name in ERROR_NAMES if self.errors[name]},
            {name: self.valid_today[name] for name in ERROR_NAMES if self.valid_today[name]},
            self.num_missing_system,
            self.num_missing_user,
            Distribution.of(self.num_messages),
            Distribution.of(self.num_tokens),
            Distribution.of(self.num_assistant_tokens),
            self.totals[DEFAULT_ENCODING],
            DEFAULT_ENCODING if self.encodings else "",
        )

    def _add_chat(self, row: Any) -> None:
        if not isinstance(row, dict):
            self.errors["data_type"] += 1
            return
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            self.errors["missing_messages_list"] += 1
            return
        objects = [message for message in messages if isinstance(message, dict)]
        self.errors["message_missing_key"] += len(messages) - len(objects)
        for message in objects:
            self._add_message(message)
        roles = {message["role"] for message in objects if isinstance(message.get("role"), str)}
        if "assistant" not in roles:
            self.errors["example_missing_assistant_message"] += 1
        self.num_missing_system += "system" not in roles
        self.num_missing_user += "user" not in roles
        self.num_messages.append(len(messages))
        self._add_tokens(row)
        if DEFAULT_ENCODING in self.encodings:
            encoding = load_encoding(DEFAULT_ENCODING)
            self.num_assistant_tokens.append(num_answer_tokens(encoding, objects))

    def _add_tokens(self, row: dict[str, Any]) -> None:
        for name in self.encodings:
            number = num_row_tokens(load_encoding(name), row)
            self.totals[name] += number
            if name == DEFAULT_ENCODING:
                self.num_tokens.append(number)

    def _add_message(self, message: dict[str, Any]) -> None:
        role, content = message.get("role"), message.get("content")
        calls = bool(message.get("tool_calls")) or bool(message.get("refusal"))
        excused = role == "assistant" and calls
        self._count("message_missing_key", not {"role", "content"} <= message.keys(), excused)
        unknown = message.keys() - NOTEBOOK_KEYS
        self._count("message_unrecognized_key", bool(unknown), unknown <= KNOWN_KEYS)
        self._count(
            "unrecognized_role",
            not isinstance(role, str) or role not in NOTEBOOK_ROLES,
            isinstance(role, str) and role in ROLES,
        )
        empty = not content and not message.get("function_call")
        self._count(
            "missing_content",
            empty or not isinstance(content, str),
            excused or isinstance(content, list) or (role in ("tool", "user") and content == ""),
        )

    def _count(self, name: str, wrong: bool, valid_today: bool) -> None:
        self.errors[name] += wrong
        self.valid_today[name] += wrong and valid_today
