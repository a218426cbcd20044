"""Tool definitions, calls and answers in one row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith.data import strict_json
from tunesmith.data.checks.view import dicts


def calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls of a message, the deprecated function call among them."""
    calls = dicts(message.get("tool_calls"))
    legacy = message.get("function_call")
    if not calls and isinstance(legacy, dict):
        return [{"function": legacy}]
    return calls


def call_faults(row: dict[str, Any], messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Calls that cannot be read, that name no tool of the row, or that nobody answers."""
    names = _tool_names(row)
    for index, message in enumerate(messages, 1):
        if message.get("role") != "assistant":
            continue
        calls = calls_of(message)
        where = f", message {index}: "
        for call in calls:
            function = call.get("function")
            function = function if isinstance(function, dict) else {}
            if not _holds_object(function.get("arguments")):
                yield "arguments_not_json", f"{where}arguments must be a string with a JSON object"
            name = function.get("name")
            if names and not (isinstance(name, str) and name in names):
                yield "unknown_tool", f"{where}calls a tool that the row does not define"
        if calls and not names:
            yield "tool_calls_without_tools", f'{where}calls tools, but the row has no "tools"'
        after = messages[index : index + 1]
        if calls and after and after[0].get("role") not in ("tool", "function"):
            yield "unanswered_tool_call", f"{where}its tool calls are not answered"


def orphans(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Tool messages that answer no call before them."""
    ids: set[str] = set()
    has_call = False
    for index, message in enumerate(messages, 1):
        role = message.get("role")
        if role == "tool":
            name = message.get("tool_call_id")
            if not isinstance(name, str) or name not in ids:
                yield "orphan_tool_message", f", message {index}: answers no tool call before it"
        elif role == "function" and not has_call:
            yield "orphan_tool_message", f", message {index}: answers no function call before it"
        elif role == "assistant":
            calls = calls_of(message)
            has_call |= bool(calls)
            for place, call in enumerate(calls):
                # The ids that formats gives to calls without one.
                legacy = "function_call" in message and not message.get("tool_calls")
                given = f"call_{index - 1}" if legacy else f"call_{index - 1}_{place}"
                name = call.get("id", given)
                if isinstance(name, str):
                    ids.add(name)


def _tool_names(row: dict[str, Any]) -> set[str]:
    functions = [tool.get("function") for tool in dicts(row.get("tools"))]
    functions += dicts(row.get("functions"))
    names = (each.get("name") for each in functions if isinstance(each, dict))
    return {name for name in names if isinstance(name, str)}


def _holds_object(arguments: Any) -> bool:
    if not isinstance(arguments, str):
        return False
    try:
        return not arguments or isinstance(strict_json.loads(arguments), dict)
    except strict_json.JsonError:
        return False
