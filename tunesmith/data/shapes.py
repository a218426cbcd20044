"""The shapes that other tools give a row, to chat rows and back.

Each shape has two functions: one reads a record of its own into chat rows, one writes a chat row as
a record. What a shape cannot hold is an error that names it, never left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import TunesmithError

Record = dict[str, Any]

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "function_call",
    "tool_call": "function_call",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
COLUMNS = {
    "prompt": ("prompt", "instruction", "question", "input", "user", "text"),
    "completion": (
        *("completion", "output", "answer", "response", "assistant"),
        *("label", "category", "class", "target"),
    ),
    "system": ("system", "system_prompt"),
}


class ShapeError(TunesmithError):
    """A record that does not have its shape, or a row that the shape cannot hold."""


class ColumnError(ShapeError):
    """A table whose columns do not say what they are: no row of it can be read."""


@dataclass(frozen=True)
class Options:
    system: str | None = None
    """Read: the system message of rows that have none. Write: the one that is left out."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """"prompt", "completion" or "system" -> the name of its column."""
    strip: bool = False
    """Take white space off the ends of prompts and completions."""


def chat_row(messages: list[Record], options: Options, source: Record | None = None) -> Record:
    """A chat row, with what belongs beside its messages."""
    if options.system is not None and not any(
        message.get("role") in ("system", "developer") for message in messages
    ):
        messages = [{"role": "system", "content": options.system}, *messages]
    row: Record = {"messages": messages}
    source = source or {}
    tools = source.get("tools")
    if isinstance(tools, str) and tools.strip():
        tools = _parsed(tools, "tools")
    if tools:
        row["tools"] = [
            tool if "function" in tool else {"type": "function", "function": tool} for tool in tools
        ]
    if isinstance(source.get("parallel_tool_calls"), bool):
        row["parallel_tool_calls"] = source["parallel_tool_calls"]
    return row


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ShapeError(f"'{name}' is no JSON: {error}") from None


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ShapeError(f"'{name}' is missing or no text")
    return value


def read_chat(record: Record, options: Options) -> list[Record]:
    """OpenAI's rows and Hugging Face's: the latter have more columns, and arguments as objects."""
    messages = []
    for message in record["messages"]:
        if not isinstance(message, dict):
            raise ShapeError("'messages' holds something that is no message")
        kept = {key: value for key, value in message.items() if value is not None}
        if "content" in message or "tool_calls" not in kept:
            kept.setdefault("content", message.get("content"))
        for call in kept.get("tool_calls") or []:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
                function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        if kept.get("tool_calls") == []:
            del kept["tool_calls"]
        messages.append(kept)
    return [chat_row(messages, options, record)]


def write_chat(row: Record, options: Options) -> Record:
    return row


def read_sharegpt(record: Record, options: Options) -> list[Record]:
    turns = record.get("conversations") or record.get("conversation")
    messages = _system(record)
    call_id = ""
    for place, turn in enumerate(turns or []):
        name = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
        role = SHAREGPT_ROLES.get(str(name).lower())
        text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if role is None:
            raise ShapeError(f"turn {place + 1} is from {name!r}, which is nobody known")
        text = _text(text, "value")
        if role == "function_call":
            call_id = f"call_{place}"
            messages.append(_call(text, call_id))
        elif role == "tool":
            messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
        else:
            messages.append({"role": role, "content": text})
    return [chat_row(messages, options, record)]


def _call(text: str, call_id: str) -> Record:
    value = _parsed(text, "function_call")
    if not isinstance(value, dict) or "name" not in value:
        raise ShapeError("a function call is no object with name and arguments")
    arguments = value.get("arguments", {})
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": value["name"], "arguments": written}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def write_sharegpt(row: Record, options: Options) -> Record:
    names = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
    turns = []
    for message in _without_system(row["messages"], options):
        calls = message.get("tool_calls") or []
        if len(calls) > 1 or (calls and message.get("content")):
            raise ShapeError("several tool calls at once, or a call beside a text")
        _refuse(message, {"name", "weight", "function_call", "refusal"})
        if calls:
            function = calls[0]["function"]
            call = {"name": function["name"], "arguments": json.loads(function["arguments"])}
            turns.append({"from": "function_call", "value": json.dumps(call, ensure_ascii=False)})
        elif message["role"] not in names:
            raise ShapeError(f"a message of the role {message['role']}")
        else:
            value = _text(message.get("content"), "content")
            turns.append({"from": names[message["role"]], "value": value})
    record: Record = {"conversations": turns}
    if row.get("tools"):
        tools = [tool["function"] for tool in row["tools"]]
        record["tools"] = json.dumps(tools, ensure_ascii=False)
    return record


def read_alpaca(record: Record, options: Options) -> list[Record]:
    messages = _system(record)
    history = record.get("history") or []
    if not isinstance(history, list) or not all(_is_turn(each) for each in history):
        raise ShapeError("'history' must be a list of [question, answer]")
    for question, answer in history:
        messages += _pair(question, answer)
    instruction = _text(record.get("instruction"), "instruction")
    extra = record.get("input")
    prompt = f"{instruction}\n\n{extra}" if isinstance(extra, str) and extra else instruction
    return [chat_row([*messages, *_pair(prompt, _text(record.get("output"), "output"))], options)]


def _is_turn(value: Any) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [str, str]


def _pair(prompt: str, answer: str) -> list[Record]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def write_alpaca(row: Record, options: Options) -> Record:
    system, pairs = _pairs(row, options)
    *history, (prompt, answer) = pairs
    record: Record = {"instruction": prompt, "input": "", "output": answer}
    if system:
        record["system"] = system
    if history:
        record["history"] = [list(pair) for pair in history]
    return record


def read_completions(record: Record, options: Options) -> list[Record]:
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return [chat_row([*prompt, *completion], options, record)]
    pair = _plain(_text(prompt, "prompt"), _text(completion, "completion"), options)
    return [chat_row([*_system(record), *pair], options)]


def _system(record: Record) -> list[Record]:
    text = record.get("system")
    return [{"role": "system", "content": text}] if isinstance(text, str) and text else []


def _plain(prompt: str, completion: str, options: Options) -> list[Record]:
    return _pair(prompt.strip(), completion.strip()) if options.strip else _pair(prompt, completion)


def write_completions(row: Record, options: Options) -> Record:
    system, pairs = _pairs(row, options)
    if system or len(pairs) != 1:
        raise ShapeError(
            "more than one prompt and one answer"
            if len(pairs) != 1
            else "a system message; give --system with its text to leave it out"
        )
    return {"prompt": pairs[0][0], "completion": pairs[0][1]}


def read_columns(record: Record, options: Options) -> list[Record]:
    """A table's row: which column is what is said by the options, or guessed by its name."""
    columns = {name: _column(record, name, options) for name in COLUMNS}
    cells = {name: "" if key is None else record.get(key) for name, key in columns.items()}
    if not cells["prompt"] or cells["completion"] is None:
        raise ColumnError(
            f"which of the columns {', '.join(record)} is the prompt and which the answer? "
            "Say so: --column prompt=NAME --column completion=NAME"
        )
    system = [{"role": "system", "content": cells["system"]}] if cells["system"] else []
    pair = _plain(
        _text(cells["prompt"], "prompt"), _text(cells["completion"], "completion"), options
    )
    return [chat_row([*system, *pair], options)]


def _column(record: Record, name: str, options: Options) -> str | None:
    if name in options.columns:
        if options.columns[name] not in record:
            raise ColumnError(f"there is no column {options.columns[name]!r}")
        return options.columns[name]
    lowered = {key.strip().lower(): key for key in record}
    return next((lowered[each] for each in COLUMNS[name] if each in lowered), None)


def write_columns(row: Record, options: Options) -> Record:
    system, pairs = _pairs(row, options)
    if len(pairs) != 1:
        raise ShapeError("more than one prompt and one answer")
    names = {name: options.columns.get(name, name) for name in COLUMNS}
    record = {names["prompt"]: pairs[0][0], names["completion"]: pairs[0][1]}
    return {names["system"]: system, **record} if options.system is None else record


def _pairs(row: Record, options: Options) -> tuple[str, list[tuple[str, str]]]:
    """(the system message, prompts and answers in turn) of a row that is nothing more."""
    messages = _without_system(row["messages"], options)
    system = ""
    if messages and messages[0].get("role") in ("system", "developer"):
        system = _text(messages[0].get("content"), "content")
        messages = messages[1:]
    if row.get("tools") or not messages or len(messages) % 2:
        raise ShapeError("tools, or messages that are no pairs of prompt and answer")
    pairs = []
    for user, assistant in zip(messages[::2], messages[1::2], strict=True):
        if (user.get("role"), assistant.get("role")) != ("user", "assistant"):
            raise ShapeError("messages that are no pairs of prompt and answer")
        for message in (user, assistant):
            _refuse(message, {"name", "weight", "tool_calls", "function_call", "refusal"})
        pairs.append(
            (_text(user.get("content"), "content"), _text(assistant.get("content"), "content"))
        )
    return system, pairs


def _without_system(messages: list[Record], options: Options) -> list[Record]:
    first = messages[0] if messages else {}
    same = first.get("role") in ("system", "developer") and first.get("content") == options.system
    return messages[1:] if same else messages


def _refuse(message: Record, keys: set[str]) -> None:
    found = sorted(key for key in keys if message.get(key) is not None)
    if found:
        raise ShapeError(f"a message with '{found[0]}'")
