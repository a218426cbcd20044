"""Chat rows: everything that is wrong with one, under the codes of codes.CODES.

A row is an error here exactly where `formats.chat_row` refuses it: the faults are found one by one,
and what is left over is named by the refusal itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith.data.checks.tools import call_faults, calls_of, orphans
from tunesmith.data.checks.view import dicts
from tunesmith.data.codes import CODES
from tunesmith.data.formats import ROW_KEYS, ChatRow, Place, chat_row
from tunesmith.data.messages import KEYS, KNOWN_KEYS, MAX_MESSAGES, ROLES, Message, is_plain
from tunesmith.errors import DataError

Fault = tuple[str, str]
"""A code, and what is wrong in words that go on after "Example N"."""


def faults(place: Place, row: dict[str, Any]) -> tuple[list[Fault], ChatRow | None]:
    """What is wrong with a chat row; and the row as it is trained on, if it is."""
    clean = _clean_texts(row)
    if clean is not None:
        return [], ChatRow(place.number, place.line, clean)
    found = list(_row_faults(row))
    try:
        return found, chat_row(place, row)
    except DataError as error:
        if not any(CODES[code].severity == "error" for code, _ in found):
            found.append((_code_of(error.message), _after_number(error.message, place)))
        return found, None


def _clean_texts(row: dict[str, Any]) -> list[Message] | None:
    """The messages of a row that are all texts, as in most rows, if nothing is wrong with it."""
    messages = row.get("messages")
    if len(row) != 1 or not isinstance(messages, list) or len(messages) > MAX_MESSAGES:
        return None
    texts = []
    for message in messages:
        if not is_plain(message) or not message["content"].strip():
            return None
        texts.append({"role": message["role"], "content": message["content"]})
    is_right = any(text["role"] == "user" for text in texts) and texts[-1]["role"] == "assistant"
    return texts if is_right else None


def _row_faults(row: dict[str, Any]) -> Iterator[Fault]:
    for key in row:
        if key not in ROW_KEYS:
            yield "unknown_key", ": a key that rows do not have"
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "missing_messages", ": 'messages' must be a non-empty list"
        return
    is_special = False
    for index, message in enumerate(messages, 1):
        if is_plain(message) and message["content"].strip():
            continue
        is_special = True
        if isinstance(message, dict):
            for code, text in _message_faults(message):
                yield code, f", message {index}: {text}"
        else:
            yield "invalid_message", f", message {index}: must be an object"
    found = dicts(messages)
    roles = [each.get("role") for each in found]
    yield from _whole_faults(found, roles)
    if is_special:
        yield from orphans(found)
        yield from call_faults(row, found)


def _message_faults(message: dict[str, Any]) -> Iterator[Fault]:
    role = message.get("role")
    if role is None:
        yield "missing_role", "has no 'role'"
        return
    if not isinstance(role, str) or role not in ROLES:
        yield "wrong_role", f"its role is not one of {', '.join(ROLES)}"
        return
    for key, value in message.items():
        if key not in KEYS[role] and not (value is None and key in KNOWN_KEYS):
            yield "unknown_key", "a key that this message does not have"
    yield from _content_faults(message, role)
    weight = message.get("weight")
    is_right = not isinstance(weight, bool) and weight in (0, 1, None)
    if role == "assistant" and not is_right:
        yield "bad_weight", "'weight' must be 0 or 1"


def _content_faults(message: dict[str, Any], role: str) -> Iterator[Fault]:
    content = message.get("content")
    if content is None:
        replaced = message.get("refusal") or calls_of(message)
        if role == "function" or (role == "assistant" and replaced):
            return
        yield "missing_content", "has no 'content'"
    elif isinstance(content, str) and not content.strip() and _needs_text(message, role):
        yield "empty_content", "its content is empty"


def _needs_text(message: dict[str, Any], role: str) -> bool:
    """Tools may return nothing, and beside tool calls an empty text is the same as null."""
    return role not in ("tool", "function") and not calls_of(message)


def _whole_faults(found: list[dict[str, Any]], roles: list[Any]) -> Iterator[Fault]:
    if not roles:
        return
    if roles[-1] != "assistant":
        yield "last_not_assistant", ": the last message must be from the assistant"
    answers = [each for each in found if each.get("role") == "assistant"]
    if answers and all(_is_zero(each.get("weight")) for each in answers):
        yield "nothing_to_learn", ": every assistant message has weight 0"
    if "user" not in roles:
        yield "no_user_message", ": has no user message"


def _is_zero(weight: Any) -> bool:
    return not isinstance(weight, bool) and weight is not None and weight == 0


def _code_of(message: str) -> str:
    """The code of a refusal that no fault above explains."""
    if "'tools" in message or "'functions" in message:
        return "invalid_tools"
    if "'parallel_tool_calls'" in message:
        return "invalid_tools"
    return "invalid_message"


def _after_number(message: str, place: Place) -> str:
    _, found, text = message.partition(f"Example {place.number}")
    return text.removesuffix(place.suffix) if found else f": {message}"
