"""The grammars that answers are held to, as text: JSON schemas, and a base's tool calls.

The language is llguidance's Lark: strings, regular expressions in slashes, `%json` with a schema,
and `<[id]>` for an added token, which no string or regular expression matches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.data.json_schema import Schema
from tunesmith.data.tool_syntax import ID, ID_PATTERN, CallSyntax

ANY_OBJECT: Schema = {"type": "object"}
# JSON as programs write it: with a space behind "," and ":", or without. An answer keeps to one of
# them, and white space that is free cannot go on without end.
JSON_STYLES = ((", ", ": "), (",", ":"))
MAX_CALLS = 32
ANYTHING = "(?s:.*)"


@dataclass(frozen=True)
class Tool:
    """A function that may be called; `parameters` is enforceable."""

    name: str
    parameters: Schema


def json_grammar(schema: Schema, lead: str = "") -> str:
    """Answers that are one JSON value of the schema, after a `lead` that may be there."""
    return "\n".join(["start: answer", *_answer_rules(schema, lead)])


def call_grammar(
    syntax: CallSyntax,
    tools: list[Tool],
    token_ids: Mapping[str, int],
    *,
    many: bool,
    forced: bool,
    answer: Schema | None = None,
    lead: str = "",
) -> str:
    """Answers that are calls of these tools.

    Not `forced`, also text, which may lead to calls; with `answer` JSON of that schema instead.
    """
    writer = _Writer(syntax, token_ids)
    rules = [writer.call(number, tool) for number, tool in enumerate(tools)]
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(tools))))
    calls = "call"
    if many and syntax.between:
        calls = f"call ({writer.literal(syntax.between)} call){{0,{MAX_CALLS - 1}}}"
    tail = writer.literal(syntax.tail)
    if forced:
        rules.insert(0, f"start: {writer.literal(syntax.head)} {calls} {tail}")
    elif answer is not None:
        rules[:0] = [
            f"start: answer | {writer.literal(syntax.head)} {calls} {tail}",
            *_answer_rules(answer, lead),
        ]
    else:
        rules[:0] = writer.led_by_text(f"{calls} {tail}")
    return "\n".join(rules)


class _Writer:
    def __init__(self, syntax: CallSyntax, token_ids: Mapping[str, int]) -> None:
        self._syntax = syntax
        self._token_ids = token_ids
        longest_first = sorted(token_ids, key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def literal(self, text: str) -> str:
        """Fixed text, with its added tokens by id and a call's own id by pattern."""
        parts: list[str] = []
        start = 0
        marks = re.compile(f"{self._tokens.pattern}|{ID}")
        for found in marks.finditer(text):
            parts.append(_quoted(text[start : found.start()]))
            mark = found[0]
            parts.append(f"/{ID_PATTERN}/" if mark == ID else f"<[{self._token_ids[mark]}]>")
            start = found.end()
        parts.append(_quoted(text[start:]))
        return " ".join(part for part in parts if part) or '""'

    def call(self, number: int, tool: Tool) -> str:
        syntax = self._syntax
        if syntax.form == "python":
            return self._python_call(number, tool)
        before = syntax.before_name + tool.name + syntax.after_name
        after = self.literal(syntax.after_arguments)
        parameters = _json(tool.parameters, syntax.separators)
        return (
            f"call_{number}: {self.literal(before)} arguments_{number} {after}\n"
            f"arguments_{number}: {parameters}"
        )

    def _python_call(self, number: int, tool: Tool) -> str:
        """name(key=value, ...): the keys in the schema's order, those not required optional."""
        schema = tool.parameters if isinstance(tool.parameters, dict) else {}
        around = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        required = set(schema.get("required", ()))
        pairs = list(schema.get("properties", {}).items())
        rules = [f"call_{number}: {_quoted(tool.name + '(')} first_{number}_0 {_quoted(')')}"]
        for place, (key, value) in enumerate(pairs):
            inner = {**value, **around} if isinstance(value, dict) else value
            pair = f"pair_{number}_{place}"
            rules.append(f"{pair}: {_quoted(key + '=')} {_json(inner, self._syntax.separators)}")
            rest, first = f"rest_{number}_{place + 1}", f"first_{number}_{place + 1}"
            if key in required:
                rules.append(f"first_{number}_{place}: {pair} {rest}")
                rules.append(f"rest_{number}_{place}: {_quoted(', ')} {pair} {rest}")
            else:
                rules.append(f"first_{number}_{place}: {pair} {rest} | {first}")
                rules.append(f"rest_{number}_{place}: ({_quoted(', ')} {pair})? {rest}")
        rules += [f'{kind}_{number}_{len(pairs)}: ""' for kind in ("first", "rest")]
        return "\n".join(rules)

    def led_by_text(self, calls: str) -> list[str]:
        """Any text; from where a call begins, calls."""
        syntax = self._syntax
        head = syntax.head
        if found := self._tokens.search(head):
            lead = self.literal(head[: found.end()].lstrip())
            rest = self.literal(head[found.end() :])
            return [f"start: TEXT ({lead} {rest} {calls})?", f"TEXT: /{ANYTHING}/"]
        if syntax.only_at_start:
            first = head.strip() + syntax.before_name
            text = f"TEXT: /{ANYTHING}/ & ~/{_pattern(first)}{ANYTHING}/" if first else ""
            if not text:
                return [f"start: {calls}"]
            return [f"start: TEXT | {self.literal(head)} {calls}", text]
        anchor = head.split()[0]
        rest = self.literal(head[head.index(anchor) + len(anchor) :])
        return [
            f"start: TEXT | lead {rest} {calls}",
            f"TEXT: /{ANYTHING}/ & ~/{ANYTHING}{_pattern(anchor)}{ANYTHING}/",
            f"lead[suffix={_quoted(anchor)}]: /{ANYTHING}/",
        ]


def _answer_rules(schema: Schema, lead: str) -> list[str]:
    values = [f"value_{number}" for number in range(len(JSON_STYLES))]
    rules = [
        f"{name}: {_json(schema, style)}" for name, style in zip(values, JSON_STYLES, strict=True)
    ]
    led = f"({_quoted(lead)})? " if lead else ""
    return [f"answer: {led}({' | '.join(values)})", *rules]


def _json(schema: Schema, separators: tuple[str, str]) -> str:
    item, key = separators
    style = {"whitespace_flexible": False, "item_separator": item, "key_separator": key}
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    return "%json " + json.dumps({**schema, "x-guidance": style}, ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _pattern(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_ ]", lambda found: f"\\x{{{ord(found[0]):x}}}", text)
