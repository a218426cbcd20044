"""The figures of OpenAI's data preparation notebook, under the same names.

The notebook is from 2023: it counts tools, developer messages and null content as errors, which
today they are not. Its numbers are kept, and how many of them are no error today stands beside.
What it prints as "p5 / p95" are the 10th and the 90th percentile; here they are called so.
"""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tiktoken import Encoding

from tunesmith.data.messages import KNOWN_KEYS, ROLES
from tunesmith.data.openai_tokens import num_answer_tokens, num_conversation_tokens

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
        if not values:
            return None
        ordered = sorted(values)
        return cls(
            ordered[0],
            ordered[-1],
            statistics.fmean(ordered),
            statistics.median(ordered),
            _quantile(ordered, 0.1),
            _quantile(ordered, 0.9),
        )


def _quantile(ordered: Sequence[int], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


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
    """Adds up figures row by row; 12 bytes a row are kept, for the percentiles."""

    encoding: Encoding | None = None
    """None: tokens are not counted."""
    errors: Counter[str] = field(default_factory=Counter)
    valid_today: Counter[str] = field(default_factory=Counter)
    num_missing_system: int = 0
    num_missing_user: int = 0
    num_messages: array[int] = field(default_factory=lambda: array("L"))
    num_tokens: array[int] = field(default_factory=lambda: array("L"))
    num_assistant_tokens: array[int] = field(default_factory=lambda: array("L"))

    def add(self, row: Any) -> None:
        """Counts a parsed line, whatever it holds."""
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
        if self.encoding is not None:
            self.num_tokens.append(num_conversation_tokens(self.encoding, objects))
            self.num_assistant_tokens.append(num_answer_tokens(self.encoding, objects))

    def figures(self) -> Figures:
        return Figures(
            {name: self.errors[name] for name in ERROR_NAMES if self.errors[name]},
            {name: self.valid_today[name] for name in ERROR_NAMES if self.valid_today[name]},
            self.num_missing_system,
            self.num_missing_user,
            Distribution.of(self.num_messages),
            Distribution.of(self.num_tokens),
            Distribution.of(self.num_assistant_tokens),
            sum(self.num_tokens),
            self.encoding.name if self.encoding else "",
        )

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
