"""Preference rows: the two conversations that one is, and everything that is wrong with it.

The report lists all faults of a row, a job refuses it for the first one: in the same words, because
they are found here once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.formats import (
    OUTPUTS,
    ChatRow,
    Limits,
    Place,
    no_object,
    other_method,
    values,
)
from tunesmith.data.messages import Message, MessageError, normalise_messages, normalise_tools
from tunesmith.errors import DataError

ROW_KEYS = {"input", *OUTPUTS}
INPUT_KEYS = {"messages", "tools", "parallel_tool_calls"}


@dataclass(frozen=True)
class PairRow:
    """One checked preference: two conversations that differ in their last message alone.

    What the assistant says before it has weight 0: only the two answers are learned from.
    """

    number: int
    line: int
    preferred: ChatRow
    rejected: ChatRow


@dataclass(frozen=True)
class PairFault:
    """What is wrong with a row, so that a job refuses it."""

    code: str
    """Of codes.CODES."""
    text: str
    """Goes on after "Example N"; quotes nothing of the row."""
    extra_key: str = ""
    where: str = ""
    """Of a key too many: where it is, as `Place.extra_key` takes it."""

    def refusal(self, place: Place) -> DataError:
        if self.extra_key:
            return place.extra_key(self.where, self.extra_key)
        return place.example(self.text)


def read_pairs(
    path: Path,
    param: str = "training_file",
    limits: Limits | None = None,
    file_id: str | None = None,
) -> Iterator[PairRow]:
    """The preference pairs of a file in order; everything else as `formats.read_rows`."""
    for place, value in values(path, param, limits or Limits(), file_id):
        yield pair_row(place, value)


def pair_row(place: Place, row: Any) -> PairRow:
    """The checked preference of a line's value, or DataError for the first thing that is wrong."""
    if not isinstance(row, dict):
        raise no_object(place, "preference pairs")
    if "messages" in row and not ROW_KEYS & row.keys():
        raise other_method(place, "chat", "supervised", "dpo")
    faults, pair = checked(place, row)
    if pair is None:
        raise faults[0].refusal(place)
    return pair


def checked(place: Place, row: dict[str, Any]) -> tuple[list[PairFault], PairRow | None]:
    """(all that is wrong with a row, the pair that it is if nothing is)."""
    faults = [
        PairFault("invalid_preference", f" is missing key '{key}'.")
        for key in ("input", *OUTPUTS)
        if key not in row
    ]
    faults += _extra_keys(row, ROW_KEYS, "", "rows do")
    source = row.get("input")
    prompt = None
    if isinstance(source, dict):
        faults += _extra_keys(source, INPUT_KEYS, ", input", "'input' does")
        prompt = _prompt(place, source, faults)
    elif "input" in row:
        text = ": 'input' must be an object: {\"messages\": [...]}"
        faults.append(PairFault("invalid_preference", text))
    answers = [_answer(key, prompt, row[key], faults) for key in OUTPUTS if key in row]
    if faults or prompt is None:
        return faults, None
    preferred, rejected = (
        ChatRow(
            place.number,
            place.line,
            [*unlearned(prompt.messages), answer],
            prompt.tools,
            prompt.parallel_tool_calls,
        )
        for answer in answers
        if answer is not None
    )
    return [], PairRow(place.number, place.line, preferred, rejected)


def unlearned(messages: list[Message]) -> list[Message]:
    """The messages of a prompt: what the assistant says in it has weight 0."""
    return [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in messages
    ]


def _extra_keys(value: dict[str, Any], known: set[str], where: str, who: str) -> list[PairFault]:
    return [
        PairFault("unknown_key", f": a key that {who} not have", key[:64], where)
        for key in value
        if key not in known
    ]


def _prompt(place: Place, source: dict[str, Any], faults: list[PairFault]) -> ChatRow | None:
    """What a row's `input` holds; None if its messages or tools are wrong."""
    try:
        messages = normalise_messages(source.get("messages"), training=True)
        tools = normalise_tools(source.get("tools"))
    except MessageError as error:
        faults.append(PairFault("invalid_preference", f": 'input.{error.path}' {error.text}"))
        return None
    parallel = source.get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        text = ": 'input.parallel_tool_calls' must be true or false"
        faults.append(PairFault("invalid_preference", text))
    if messages[-1]["role"] == "assistant":
        text = ": 'input.messages' must not end with the assistant: its answers follow"
        faults.append(PairFault("invalid_preference", text))
    return ChatRow(place.number, place.line, messages, tools, parallel)


def _answer(
    key: str, prompt: ChatRow | None, output: Any, faults: list[PairFault]
) -> Message | None:
    """The one message of a side; where there is a prompt, as an answer to it."""
    if not isinstance(output, list) or len(output) != 1:
        text = f": '{key}' must be a list of one assistant message"
        faults.append(PairFault("invalid_preference", text))
        return None
    before = prompt.messages if prompt else []
    try:
        answer = normalise_messages([*before, *output], training=True)[-1]
    except MessageError as error:
        faults.append(PairFault("invalid_preference", f": '{key}': {error.text}"))
        return None
    if answer["role"] != "assistant":
        text = f": '{key}' must be an assistant message"
        faults.append(PairFault("invalid_preference", text))
    return learned(answer)


def learned(answer: Message) -> Message:
    """A side's answer, which counts whatever weight it was given."""
    return {key: value for key, value in answer.items() if key != "weight"}
