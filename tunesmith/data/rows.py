"""Checked rows of every kind: conversations, and prompts with what belongs to them.

`formats.read_rows` reads what a supervised job trains on; this reads what people look at and count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.data.checks import shapes
from tunesmith.data.codes import CODES
from tunesmith.data.formats import ChatRow, Limits, Place, chat_row
from tunesmith.data.kinds import ROW_KINDS, detect, row_kind
from tunesmith.data.messages import Message, normalise_messages, normalise_tools
from tunesmith.data.pair_rows import learned
from tunesmith.data.raw import RawRow, read_raw

ANSWERS = {"preferred": "preferred_output", "rejected": "non_preferred_output"}
PROMPT_KEYS = {"messages", "tools"}


@dataclass(frozen=True)
class PromptRow:
    """A row that is no conversation to learn as it stands."""

    kind: str
    """completions, preference, reinforcement or evals."""
    number: int
    line: int
    messages: list[Message] = field(default_factory=list)
    """The prompt, as `normalise_messages` gives it; empty for texts without a template."""
    tools: list[dict[str, Any]] | None = None
    answers: dict[str, Message] = field(default_factory=dict)
    """"preferred" and "rejected" -> the assistant's message."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What stands beside the prompt: the grader's references, an eval's item, the two texts."""


Row = ChatRow | PromptRow


@dataclass(frozen=True)
class Part:
    """A labelled text of a row, for people."""

    label: str
    text: str
    note: str = ""


def file_kind(path: Path, method: str | None = None) -> str:
    """The kind that a file's rows are read as: chat where nothing tells otherwise."""
    kind = detect(path).kind
    if kind == "chat" and method == "reinforcement":
        return method
    return kind if kind in ROW_KINDS else "chat"


def read_any(path: Path, method: str | None = None, limits: Limits | None = None) -> Iterator[Row]:
    """The rows of a file in order. Raises DataError at the first that is wrong."""
    kind = file_kind(path, method)
    for raw in read_raw(path, limits=limits or Limits()):
        yield as_row(path, raw, kind)


def as_row(path: Path, raw: RawRow, kind: str) -> Row:
    """A row of a file of this kind. Raises DataError."""
    place = Place("training_file", raw.number, raw.line, path.name)
    if raw.problem is not None:
        raise place.unreadable(raw.problem.message, CODES[raw.problem.code].fix)
    found = row_kind(raw.value)
    if kind == "chat":
        return chat_row(place, raw.value)
    if found not in (kind, "unknown") and {found, kind} != {"chat", "reinforcement"}:
        raise place.example(f": is a {found} row among {kind} rows")
    for code, text in shapes.faults(raw.value, kind):
        if CODES[code].severity == "error":
            raise place.example(text)
    return prompt_row(raw.value, kind, raw.number, raw.line)


def prompt_row(value: dict[str, Any], kind: str, number: int, line: int) -> PromptRow:
    """A row without faults."""
    if kind in ("completions", "evals"):
        return PromptRow(kind, number, line, fields=value)
    source = value["input"] if kind == "preference" else value
    answers = {
        name: learned(normalise_messages(value[key], training=True)[0])
        for name, key in ANSWERS.items()
        if kind == "preference"
    }
    beside = {key: item for key, item in value.items() if key not in PROMPT_KEYS}
    return PromptRow(
        kind,
        number,
        line,
        normalise_messages(source["messages"], training=True),
        normalise_tools(source.get("tools")),
        answers,
        beside if kind == "reinforcement" else {},
    )


def parts(row: Row) -> Iterator[Part]:
    """Everything in a row, in order."""
    for message in row.messages:
        note = "weight 0" if message.get("weight") == 0 else ""
        yield Part(message["role"], _said(message), note)
    if isinstance(row, PromptRow):
        for name, message in row.answers.items():
            yield Part(name, _said(message))
        for name, value in texts(row.fields):
            yield Part(name, value)


def texts(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each field by its path ("item.answer", "item.turns[0]") with its value as a text."""
    for name, value in fields.items():
        yield from _texts(name, value)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if value and isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _texts(f"{name}.{key}" if isinstance(key, str) else f"{name}[{key}]", item)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(message: Message) -> str:
    text = message["content"] or ""
    for call in message.get("tool_calls", ()):
        text += f"{call['function']['name']}({call['function']['arguments']})"
    return str(text)
