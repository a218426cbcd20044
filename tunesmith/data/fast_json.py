"""What `strict_json` reads, read several times as fast, where both surely read the same.

A compiled parser reads lines that are sound. Whatever it might read differently is left to the
careful one, which has the words for what is wrong: broken lines, keys that are there twice, deep
nesting, long numbers. Duplicates cannot hide: a text has two quotes for each string, and a string
that the parsed value lacks leaves two too many.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypedDict

import msgspec

from tunesmith.data.strict_json import MAX_DEPTH, MAX_NUMBER_CHARS

ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# In a number that is too long all but four characters are digits (its signs, point and exponent):
# one digit is seen by who looks at every so many, and so many stand side by side.
STRIDE = MAX_NUMBER_CHARS // 5
DIGIT = re.compile(rb"[0-9]")
SAME_DIGITS = bytes.maketrans(b"123456789", b"000000000")
CONTAINERS = (dict, list)
MANY_DIGITS = b"0" * (STRIDE - 1)

PlainRole = Literal["user", "assistant", "system", "developer"]


class Message(TypedDict):
    role: PlainRole
    content: str


class Conversation(TypedDict):
    messages: list[Message]


# Structs are made faster than dicts, and know which keys there may be.
class MessageOnly(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: PlainRole
    content: str


class ConversationOnly(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: list[MessageOnly]


_encoder = msgspec.json.Encoder()
_values = msgspec.json.Decoder()
_conversations: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Conversation)
_conversations_only = msgspec.json.Decoder(ConversationOnly)


def loads(line: bytes, *, last_counts: bool = False) -> Any:
    """The value of a line; None where the careful parser has to look, and for a plain `null`.

    `last_counts`: keys that are there twice are no matter, the last one's value counts.
    """
    if DIGIT.search(line[::STRIDE]) and MANY_DIGITS in line.translate(SAME_DIGITS):
        return None
    try:
        value = _values.decode(line)
    except ERRORS:
        return None
    may_be_deep = line.count(b"[") + line.count(b"{") > MAX_DEPTH
    if may_be_deep and _is_deep(value):
        return None
    # What stands under a key that comes again is not in the value, and may be deep, too.
    if (may_be_deep or not last_counts) and _num_quotes(_encoder.encode(value)) != _num_quotes(
        line
    ):
        return None
    return value


def conversation(line: bytes) -> dict[str, Any] | None:
    """The value of a line that holds messages of a role and a text and no more, sooner than
    `loads`; None for others."""
    try:
        row: dict[str, Any] = _conversations.decode(line)
    except ERRORS:
        return None
    # Keys that were passed over or there twice have quotes of their own.
    return row if _num_quotes(line) == 2 + 8 * len(row["messages"]) else None


def plain_messages(line: bytes) -> list[dict[str, Any]] | None:
    """The messages of such a line, role before content; of keys that are there twice the last."""
    try:
        messages = _conversations_only.decode(line).messages
    except ERRORS:
        return None
    return msgspec.to_builtins(messages)  # type: ignore[no-any-return]


def _is_deep(value: Any) -> bool:
    """Whether it is nested beyond MAX_DEPTH."""
    level = [value] if type(value) in CONTAINERS else []
    for _ in range(MAX_DEPTH):
        inner = (node.values() if type(node) is dict else node for node in level)
        level = [item for items in inner for item in items if type(item) in CONTAINERS]
    return bool(level)


def _num_quotes(text: bytes) -> int:
    """The quotes of a JSON text that begin or end a string."""
    if b"\\" not in text or b'\\"' not in text:
        return text.count(b'"')
    if b"\\\\" in text:
        text = text.replace(b"\\\\", b"")
    return text.count(b'"') - text.count(b'\\"')
