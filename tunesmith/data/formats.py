"""Rows of a data file: read as a stream, checked one by one, refused in the API's words.

A file is UTF-8 text with one JSON object a line; only b"\\n" ends a line, because texts may hold
the other line separators of Unicode. A byte order mark, CRLF and blank lines are let pass. Memory
stays within one line, whatever the file holds.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data import fast_json, strict_json
from tunesmith.data.messages import (
    MAX_MESSAGES,
    MISSING_ROLE,
    MessageError,
    normalise_messages,
    normalise_tools,
)
from tunesmith.errors import DataError

ROW_KEYS = {"messages", "tools", "parallel_tool_calls", "functions"}
OUTPUTS = ("preferred_output", "non_preferred_output")
PREFERENCE_KEYS = set(OUTPUTS)
TYPOGRAPHIC_QUOTES = re.compile("[\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb]")
# Where a syntax error is; refusals of our own (depth, numbers) have no place.
SYNTAX = re.compile(r"\(char (\d+)\)$")
ONE_LINE_EACH = "Write each example as one JSON object on one line, as json.dumps(example) does."
# What people upload by mistake, by its first bytes.
OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"PAR1", "a Parquet file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Limits:
    """What one line may cost."""

    num_line_bytes: int = 1 << 20


class ChatRow(NamedTuple):
    """One checked example."""

    number: int
    """Its place among the examples, from 1."""
    line: int
    """Its line in the file, from 1; differs from `number` after blank lines."""
    messages: list[dict[str, Any]]
    """As `normalise_messages` gives them."""
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None


def read_rows(
    path: Path,
    param: str = "training_file",
    limits: Limits | None = None,
    file_id: str | None = None,
) -> Iterator[ChatRow]:
    """The chat examples of a file in order.

    Raises DataError at the first that is wrong, with `param` ("training_file" or
    "validation_file") in it and in its text. `file_id` is what the text calls the file; by default
    its name.
    """
    limits = limits or Limits()
    name = file_id or path.name
    for number, line, content in _contents(path, limits):
        row = _plain_row(number, line, content, limits)
        if row is None:
            place = Place(param, number, line, name)
            row = chat_row(place, _value(place, content, limits))
        yield row


def values(
    path: Path, param: str, limits: Limits, file_id: str | None
) -> Iterator[tuple[Place, Any]]:
    """Where each row is, and its JSON value. Raises DataError at a line that is no JSON."""
    for number, line, content in _contents(path, limits):
        place = Place(param, number, line, file_id or path.name)
        yield place, _value(place, content, limits)


def _contents(path: Path, limits: Limits) -> Iterator[tuple[int, int, bytes]]:
    """Number, line and bytes of each row; of a line that is too long, only as much as shows it."""
    number = 0
    # Two more for CRLF and one more to tell a line at the limit from one above it.
    most = limits.num_line_bytes + 3
    with path.open("rb", READ_BYTES) as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        for line, raw in enumerate(iter(partial(file.readline, most), b""), 1):
            content = raw.rstrip(b"\r\n")
            if content.strip() or len(content) > limits.num_line_bytes:
                number += 1
                yield number, line, content


def _plain_row(number: int, line: int, content: bytes, limits: Limits) -> ChatRow | None:
    """A row of messages that are all texts, as nearly all rows are, if nothing is wrong with it."""
    if len(content) > limits.num_line_bytes:
        return None
    messages = fast_json.plain_messages(content)
    if not messages or len(messages) > MAX_MESSAGES or messages[-1]["role"] != "assistant":
        return None
    return ChatRow(number, line, messages)


def _value(place: Place, content: bytes, limits: Limits) -> Any:
    value = (
        None if len(content) > limits.num_line_bytes else fast_json.loads(content, last_counts=True)
    )
    return parse(place, content, limits) if value is None else value


@dataclass(frozen=True)
class Place:
    """Where in which file an error is, and the API's words for it."""

    param: str
    number: int
    line: int
    file_id: str

    def invalid(self, text: str) -> DataError:
        # The public code is this one for validation files, too; `param` tells them apart.
        return self._error(f"{because_of(self.param)} {text}", "invalid_training_file")

    def example(self, text: str) -> DataError:
        """`text` goes on after "Example N"."""
        return self.invalid(f"Invalid file format. Example {self.number}{text}{self.suffix}")

    def extra_key(self, where: str, key: str) -> DataError:
        return self._error(
            f"The job failed due to a file format error in the {self.param.replace('_', ' ')}. "
            f"Invalid file format. Example {self.number}{where} contains an extra "
            f'"{key}".{self.suffix}',
            "invalid_file_format",
        )

    def unreadable(self, why: str, advice: str = "") -> DataError:
        return self.invalid(
            f"Invalid file format. Example {self.number} cannot be parsed. Error: {why} "
            f"(line {self.line})" + (f". {advice}" if advice else "")
        )

    @property
    def suffix(self) -> str:
        """The line, where the example's number does not already say it."""
        return "" if self.line == self.number else f" (line {self.line})"

    def _error(self, message: str, code: str) -> DataError:
        return DataError(message, code=code, param=self.param, line=self.line)


def because_of(param: str) -> str:
    """How the text of most errors begins."""
    return f"The job failed due to an invalid {param.replace('_', ' ')}."


def parse(place: Place, content: bytes, limits: Limits, duplicates: list[str] | None = None) -> Any:
    """The JSON value of a line without its end, or DataError. Notes keys that are there twice."""
    kind = next((name for start, name in OTHER_KINDS if content.startswith(start)), None)
    if place.number == 1 and kind:
        raise place.unreadable(f"the file is {kind}", f"Upload UTF-8 text. {ONE_LINE_EACH}")
    if len(content) > limits.num_line_bytes:
        raise place.unreadable(f"line is longer than {limits.num_line_bytes} bytes", ONE_LINE_EACH)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise place.unreadable(
            f"line is not UTF-8: byte 0x{content[error.start]:02x} at position {error.start}",
            "Save the file as UTF-8.",
        ) from None
    try:
        return strict_json.loads(text, duplicates=duplicates)
    except strict_json.JsonError as error:
        raise place.unreadable(
            f"line contains invalid json: {error}", _advice(place, text, str(error))
        ) from None


def _advice(place: Place, text: str, error: str) -> str:
    """What probably happened, by the place where parsing stopped."""
    found = SYNTAX.search(error)
    if found is None:
        return ""
    position = int(found[1])
    if TYPOGRAPHIC_QUOTES.search(text[max(0, position - 1) : position + 2]):
        return 'The line has typographic quotes; JSON needs plain ones (").'
    if text[position : position + 1] == "'":
        return "JSON needs double quotes. " + ONE_LINE_EACH
    if position >= len(text.rstrip()) and place.number == 1:
        return "The file looks like JSON spread over several lines. " + ONE_LINE_EACH
    if position >= len(text.rstrip()):
        return "The line is cut off."
    if error.startswith("Extra data") or position == 0:
        return ONE_LINE_EACH
    return ""


def chat_row(place: Place, row: Any) -> ChatRow:
    """The checked example of a line's value, or DataError for the first thing that is wrong."""
    if not isinstance(row, dict):
        raise no_object(place, "either prompt/completion pairs or chat messages")
    if "messages" not in row:
        raise _other_format(place, row)
    for key in row:
        if key not in ROW_KEYS:
            raise place.extra_key("", key[:64])
    try:
        messages = normalise_messages(row["messages"], training=True)
        tools = normalise_tools(row.get("tools"), row.get("functions"))
    except MessageError as error:
        raise _in_api_words(place, error) from None
    parallel = row.get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        raise place.example(": 'parallel_tool_calls' must be true or false")
    if messages[-1]["role"] != "assistant":
        raise place.example(": the last message must be from the assistant")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in messages):
        raise place.example(
            ": there is nothing to learn, because every assistant message has weight 0"
        )
    return ChatRow(place.number, place.line, messages, tools, parallel)


def no_object(place: Place, expected: str) -> DataError:
    return place.invalid(
        f"Unexpected file format, expected {expected}. (line {place.line}). {ONE_LINE_EACH}"
    )


def other_method(place: Place, kind: str, wanted: str, given: str) -> DataError:
    return place.invalid(
        f"Input file {place.file_id} is in the fine-tune-{kind} format, but the specified "
        f"fine-tuning job is not using '{wanted}' as the training method "
        f"(provided method={given}).{place.suffix}"
    )


def _other_format(place: Place, row: dict[str, Any]) -> DataError:
    if PREFERENCE_KEYS & row.keys():
        return other_method(place, "preference", "dpo", "supervised")
    if {"prompt", "completion"} <= row.keys():
        return place.invalid(
            f"Input file {place.file_id} has prompt/completion pairs, but this base model is tuned "
            'on chat messages. Write each pair as {"messages": [{"role": "user", "content": '
            'PROMPT}, {"role": "assistant", "content": COMPLETION}]}.' + place.suffix
        )
    return place.example(" is missing key 'messages'.")


def _in_api_words(place: Place, error: MessageError) -> DataError:
    if error.index is None:
        return place.example(f": '{error.path}' {error.text}")
    where = f", message {error.index + 1}"
    if error.extra_key is not None:
        return place.extra_key(where, error.extra_key)
    if error.text == MISSING_ROLE:
        return place.example(f"{where} {error.text}")
    return place.example(f"{where}: {error.text}")
