"""Rows that are not chat: prompt/completion pairs, preferences, reinforcement and eval rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tunesmith.data.checks.view import view
from tunesmith.data.messages import MessageError, normalise_messages, normalise_tools

Fault = tuple[str, str]
INPUT_KEYS = {"messages", "tools", "parallel_tool_calls"}
OUTPUTS = ("preferred_output", "non_preferred_output")
PREFERENCE_ROW = {"input", *OUTPUTS}


def faults(row: dict[str, Any], kind: str) -> list[Fault]:
    """What is wrong with a row of one of `KINDS`."""
    return list(KINDS[kind](row))


def _completion(row: dict[str, Any]) -> Iterator[Fault]:
    for key in ("prompt", "completion"):
        value = row.get(key)
        if not isinstance(value, str):
            yield "invalid_completion", f": '{key}' must be a text"
        elif key == "completion" and not value.strip():
            yield "empty_content", f": '{key}' is empty"
    if row.keys() - {"prompt", "completion"}:
        yield "unknown_key", ": a key that rows do not have"


def _preference(row: dict[str, Any]) -> Iterator[Fault]:
    if row.keys() - PREFERENCE_ROW:
        yield "unknown_key", ": a key that rows do not have"
    source = row.get("input")
    if isinstance(source, dict):
        if source.keys() - INPUT_KEYS:
            yield "unknown_key", ": a key that 'input' does not have"
        yield from _input(source)
    else:
        yield "invalid_preference", ": 'input' must be an object {\"messages\": [...]}"
    outputs = [row.get(key) for key in OUTPUTS]
    for key, output in zip(OUTPUTS, outputs, strict=True):
        yield from _output(key, output)
    seen = view(row, "preference")
    if seen is not None and seen.answer == seen.rejected and outputs[0] == outputs[1]:
        yield "equal_preference", ": both answers are the same"


def _input(source: dict[str, Any]) -> Iterator[Fault]:
    try:
        messages = normalise_messages(source.get("messages"), training=True)
        normalise_tools(source.get("tools"))
    except MessageError as error:
        yield "invalid_preference", f": 'input.{error.path}' {error.text}"
        return
    if messages[-1]["role"] == "assistant":
        yield "invalid_preference", ": 'input.messages' must not end with the assistant"


def _output(key: str, output: Any) -> Iterator[Fault]:
    if not isinstance(output, list) or len(output) != 1:
        yield "invalid_preference", f": '{key}' must be a list of one assistant message"
        return
    try:
        [message] = normalise_messages(output, training=True)
    except MessageError as error:
        yield "invalid_preference", f": '{key}' {error.text}"
        return
    if message["role"] != "assistant":
        yield "invalid_preference", f": '{key}' must be an assistant message"
    elif not message["content"].strip() and "tool_calls" not in message:
        yield "empty_content", f": '{key}' is empty"


def _reinforcement(row: dict[str, Any]) -> Iterator[Fault]:
    try:
        messages = normalise_messages(row.get("messages"), training=True)
        normalise_tools(row.get("tools"))
    except MessageError as error:
        yield "invalid_reinforcement", f": '{error.path}' {error.text}"
        return
    if messages[-1]["role"] != "user":
        yield "invalid_reinforcement", ": the last message must be the user's"


def _eval(row: dict[str, Any]) -> Iterator[Fault]:
    if not isinstance(row.get("item"), dict):
        yield "invalid_eval", ": 'item' must be an object"
    if row.keys() - {"item", "sample"}:
        yield "unknown_key", ": a key that rows do not have"


KINDS: Mapping[str, Callable[[dict[str, Any]], Iterator[Fault]]] = {
    "completions": _completion,
    "preference": _preference,
    "reinforcement": _reinforcement,
    "evals": _eval,
}
