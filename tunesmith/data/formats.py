"""Rows of a data file: read as a stream, checked one by one, refused in the API's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.data.messages import MessageError as MessageError
from tunesmith.data.messages import normalise_messages as normalise_messages
from tunesmith.data.messages import normalise_tools as normalise_tools


@dataclass(frozen=True)
class ChatRow:
    """One checked example."""

    number: int
    """Its place among the examples, from 1."""
    line: int
    """Its line in the file, from 1; differs from `number` after blank lines."""
    messages: list[dict[str, Any]]
    """As `normalise_messages` gives them."""
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None
