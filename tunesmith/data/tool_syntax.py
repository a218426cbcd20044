"""How a base writes tool calls, found by letting its chat template write some.

Whatever the family (Hermes and Qwen, Llama, Mistral, DeepSeek, calls in Python's form, our own), a
message with calls is: head, a call, and for each further one `between` and a call, then tail. In a
call stand a name and its arguments with fixed text around them. All of it is read off a rendering,
so a call that is parsed or forced has the form that the model was trained on.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunesmith.data.messages import Message
from tunesmith.data.sandbox import TemplateRefusedError
from tunesmith.data.template import ChatTemplate

# Stands for a call's id in the text around name and arguments.
ID = "\ufdd2"
ID_PATTERN = "[a-zA-Z0-9]{9}"
CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("callid001", "find_way", {"city": "Bergen", "days": 3}),
    ("callid002", "find_ship", {"port": "Turku", "days": 4}),
)
USER: Message = {"role": "user", "content": "Which way to Oslo?"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Finds it",
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string"} for key in arguments},
            },
        },
    }
    for _, name, arguments in CALLS
]


@dataclass(frozen=True)
class CallSyntax:
    """The text of a message with calls. `between` is None where one message holds one call."""

    form: Literal["object", "named", "python"]
    """A JSON object that holds name and arguments; a name, then an object; name(key=value)."""
    head: str
    tail: str
    between: str | None
    before_name: str = ""
    after_name: str = ""
    after_arguments: str = ""
    name_key: str = ""
    arguments_key: str = ""
    separators: tuple[str, str] = (", ", ": ")
    """Of the arguments' JSON."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that may stand around names and arguments."""
        around = (self.before_name, self.after_name, self.after_arguments)
        return (self.head, self.tail, self.between or "", *around)

    @property
    def only_at_start(self) -> bool:
        """Whether nothing but its place marks a call, so that one in mid-text is just text."""
        return len(self.head.strip()) < 2


@dataclass(frozen=True)
class _Found:
    """A call in a rendering: where it begins and ends, and its parts."""

    start: int
    end: int
    syntax: CallSyntax


def probe_calls(
    template: ChatTemplate, adapt: Any, stop_tokens: frozenset[str]
) -> CallSyntax | None:
    """The syntax of calls; None where the template writes none that can be read back.

    `adapt` brings messages into the template's dialect, `stop_tokens` end a message.
    """
    one = _turn(template, adapt, 1, stop_tokens)
    first = one and _find(one, *CALLS[0])
    if not one or not first:
        return None
    head, tail = one[: first.start], one[first.end :]
    syntax = replace(first.syntax, head=head, tail=tail)
    two = _turn(template, adapt, 2, stop_tokens)
    if two and two.startswith(head) and two.endswith(tail):
        second = _find(two, *CALLS[1])
        again = _find(two, *CALLS[0])
        if second and again and two[second.end :] == tail:
            return replace(syntax, between=two[again.end : second.start])
    return syntax


def _turn(
    template: ChatTemplate, adapt: Any, num_calls: int, stop_tokens: frozenset[str]
) -> str | None:
    """What the model would write for a message of nothing but calls, without the stop token."""
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for call_id, name, arguments in CALLS[:num_calls]
    ]
    asked = adapt([USER])
    talk = adapt([USER, {"role": "assistant", "content": "", "tool_calls": calls}])
    answer = adapt([USER, {"role": "assistant", "content": "Northwards"}])
    try:
        prompt = template.text(asked, TOOLS, True)
        text = template.text(talk, TOOLS, False)
        plain = template.text(answer, TOOLS, False).rpartition("Northwards")[0]
    except TemplateRefusedError:
        return None
    start = next((each for each in (prompt, plain) if text.startswith(each)), None)
    if start is None:
        return None
    turn = text[len(start) :]
    ends = [turn.index(token) for token in stop_tokens if token in turn]
    return turn[: min(ends, default=len(turn))].rstrip()


def _find(text: str, call_id: str, name: str, arguments: dict[str, Any]) -> _Found | None:
    """The call in the text. Later calls are found, too: names and arguments are all different."""
    python = re.search(rf"{name}\(\s*city\s*=|{name}\(\s*port\s*=", text)
    if python:
        end = text.find(")", python.end())
        syntax = CallSyntax("python", "", "", None)
        return _Found(python.start(), end + 1, syntax) if end > 0 else None
    place = _object_equal_to(text, arguments)
    named = text.rfind(name, 0, place[0]) if place else -1
    if place is None or named < 0:
        return None
    written = text[slice(*place)]
    compact = written == json.dumps(arguments, separators=(",", ":"))
    syntax = CallSyntax("named", "", "", None, separators=(",", ":") if compact else (", ", ": "))
    outer = _object_around(text, named, place[1])
    if outer is None:
        after_name = text[named + len(name) : place[0]]
        return _Found(named, place[1], replace(syntax, after_name=after_name))
    start, end, value = outer
    keys = {json.dumps(each): key for key, each in value.items()}
    name_key, arguments_key = keys.get(json.dumps(name)), keys.get(json.dumps(arguments))
    if name_key is None or arguments_key is None:
        return None
    around = (text[start:named], text[named + len(name) : place[0]], text[place[1] : end])
    before_name, after_name, after_arguments = (each.replace(call_id, ID) for each in around)
    return _Found(
        start,
        end,
        replace(
            syntax,
            form="object",
            before_name=before_name,
            after_name=after_name,
            after_arguments=after_arguments,
            name_key=name_key,
            arguments_key=arguments_key,
        ),
    )


def _object_equal_to(text: str, value: Any) -> tuple[int, int] | None:
    for start in _braces(text):
        found = _object_at(text, start)
        if found is not None and found[0] == value:
            return start, found[1]
    return None


def _object_around(text: str, inner: int, end: int) -> tuple[int, int, dict[str, Any]] | None:
    """The innermost JSON object that holds the places from `inner` to `end`."""
    for start in reversed(_braces(text[:inner])):
        found = _object_at(text, start)
        if found is not None and found[1] > end:
            return start, found[1], found[0]
    return None


def _braces(text: str) -> list[int]:
    return [place for place, char in enumerate(text) if char == "{"]


def _object_at(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        return None
    return (value, end) if isinstance(value, dict) else None
