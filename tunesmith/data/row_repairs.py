"""The repair of each fault that one row can have: a row in, a new row out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.data.formats import ROW_KEYS
from tunesmith.data.mask import mask
from tunesmith.data.messages import KEYS, KNOWN_KEYS

ROLE_NAMES = {
    "human": "user",
    "customer": "user",
    "prompter": "user",
    "ai": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "instruction": "system",
}
Row = dict[str, Any]


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _with_messages(row: Row, change: Callable[[Row], Row]) -> Row:
    """The row with every message changed, wherever its format has messages."""
    result = dict(row)
    for key in ("messages", "preferred_output", "non_preferred_output"):
        if isinstance(row.get(key), list):
            result[key] = [change(each) if isinstance(each, dict) else each for each in row[key]]
    if isinstance(row.get("input"), dict):
        result["input"] = _with_messages(row["input"], change)
    return result


def _drop_unknown(row: Row) -> Row:
    """Rows that do not end with an answer (reinforcement, evals) may have keys of their own."""
    if not isinstance(row.get("messages"), list) or not _ends_with_assistant(row):
        return row

    def known(message: Row) -> Row:
        allowed = KEYS.get(str(message.get("role")), KNOWN_KEYS)
        return {
            key: value
            for key, value in message.items()
            if key in allowed or (value is None and key in KNOWN_KEYS)
        }

    kept = {key: value for key, value in row.items() if key in ROW_KEYS}
    return _with_messages(kept, known)


def _ends_with_assistant(row: Row) -> bool:
    last = row["messages"][-1] if row["messages"] else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def _map_role(message: Row) -> Row:
    role = message.get("role")
    if not isinstance(role, str):
        return message
    name = role.strip().lower()
    return {**message, "role": ROLE_NAMES.get(name, name if name in KEYS else role)}


def _mend_weight(message: Row) -> Row:
    weight = message.get("weight")
    if weight is None or type(weight) is int:
        return message
    number = {"0": 0, "1": 1, "true": 1, "false": 0, "0.0": 0, "1.0": 1}.get(str(weight).lower())
    return message if number is None else {**message, "weight": number}


def _write_arguments(message: Row) -> Row:
    """Hugging Face data keeps arguments as an object; the API wants its text."""

    def written(function: Any) -> Any:
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
            return function
        return {**function, "arguments": dump(function["arguments"])}

    result = dict(message)
    if isinstance(message.get("function_call"), dict):
        result["function_call"] = written(message["function_call"])
    if isinstance(message.get("tool_calls"), list):
        result["tool_calls"] = [
            {**call, "function": written(call["function"])}
            if isinstance(call, dict) and "function" in call
            else call
            for call in message["tool_calls"]
        ]
    return result


def _drop_equal(row: Row) -> Row | None:
    preferred = row.get("preferred_output")
    return None if preferred and preferred == row.get("non_preferred_output") else row


def _strip_answer(message: Row) -> Row:
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str):
        return message
    return {**message, "content": content.strip()}


def unify_system(row: Row, same: Mapping[str, str]) -> Row:
    def unified(message: Row) -> Row:
        content = message.get("content")
        if message.get("role") in ("system", "developer") and isinstance(content, str):
            return {**message, "content": same.get(content, content)}
        return message

    return _with_messages(row, unified)


# In this order: roles first, because the keys of a message depend on its role.
STEPS: Mapping[str, Callable[[Row], Any]] = {
    "wrong_role": lambda row: _with_messages(row, _map_role),
    "unknown_key": _drop_unknown,
    "bad_weight": lambda row: _with_messages(row, _mend_weight),
    "arguments_not_json": lambda row: _with_messages(row, _write_arguments),
    "equal_preference": _drop_equal,
    "mixed_endings": lambda row: _with_messages(row, _strip_answer),
    "secret": lambda row: mask(row, "secret"),
    "personal_data": lambda row: mask(row, "personal_data"),
}
