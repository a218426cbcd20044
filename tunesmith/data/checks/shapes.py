"""Rows that are not chat: prompt/completion pairs, preferences, reinforcement and eval rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tunesmith.data.formats import OUTPUTS, Place
from tunesmith.data.messages import MessageError, normalise_messages, normalise_tools
from tunesmith.data.pair_rows import checked

Fault = tuple[str, str]
# Faults are told by themselves; whoever asks knows the row.
ANYWHERE = Place("training_file", 1, 1, "")


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
    faults, pair = checked(ANYWHERE, row)
    for fault in faults:
        yield fault.code, fault.text
    if pair is None:
        return
    answers = [each.messages[-1] for each in (pair.preferred, pair.rejected)]
    for key, answer in zip(OUTPUTS, answers, strict=True):
        if not answer["content"].strip() and "tool_calls" not in answer:
            yield "empty_content", f": '{key}' is empty"
    if answers[0] == answers[1]:
        yield "equal_preference", ": both answers are the same"


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
