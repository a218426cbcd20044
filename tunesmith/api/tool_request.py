"""Which tools a chat request offers, which of them it wants called, and how that is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.api.schemas import function_schema, wrong
from tunesmith.bases import BaseInfo
from tunesmith.data.answer_grammar import Tool, call_grammar
from tunesmith.data.json_schema import Schema
from tunesmith.data.messages import normalise_tools
from tunesmith.data.tool_syntax import CallSyntax
from tunesmith.errors import BadRequest
from tunesmith.wire.chat import CreateChatCompletion

Function = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """How tools may be used: the names that may be called, and whether one has to be."""

    names: frozenset[str]
    forced: bool
    many: bool


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request. `legacy` answers with `function_call`, as the request was made."""

    tools: list[dict[str, Any]]
    choice: Choice
    syntax: CallSyntax | None
    """None: calls cannot be read, answers are text."""
    legacy: bool

    def grammar(self, token_ids: Mapping[str, int], answer: Schema | None, lead: str) -> str | None:
        """What holds the answer to calls, or to calls and `answer`; None where nothing does."""
        functions = [tool["function"] for tool in self.tools]
        strict = any(function.get("strict") is True for function in functions)
        if self.syntax is None or not (self.choice.forced or strict or answer is not None):
            return None
        where = "functions[{}].parameters" if self.legacy else "tools[{}].function.parameters"
        tools = [
            Tool(function["name"], function_schema(function, where.format(number)))
            for number, function in enumerate(functions)
            if function["name"] in self.choice.names
        ]
        return call_grammar(
            self.syntax,
            tools,
            token_ids,
            many=self.choice.many,
            forced=self.choice.forced,
            answer=answer,
            lead=lead,
        )


def tool_use(
    body: CreateChatCompletion, base: BaseInfo, syntax: CallSyntax | None
) -> ToolUse | None:
    """The tools to show the model and how to use them, if any. Raises BadRequest, MessageError."""
    tools = normalise_tools(body.tools, body.functions)
    legacy = bool(body.functions) and not body.tools
    param = "function_call" if legacy else "tool_choice"
    given = body.function_call if legacy else body.tool_choice
    for name, among in (("tool_choice", "tools"), ("function_call", "functions")):
        if not getattr(body, among) and getattr(body, name) not in (None, "none", "auto"):
            raise wrong(name, f"is only allowed when '{among}' are given")
    if tools is None:
        return None
    choice = _choice(given, param, tools, many=not legacy and body.parallel_tool_calls is not False)
    if choice is None:
        return None
    offered = "functions" if legacy else "tools"
    if not base.has_tools:
        raise _unsupported(f"The chat template of `{base.name}` has no place for tools.", offered)
    if choice.forced and syntax is None:
        raise _unsupported(
            f"The chat template of `{base.name}` does not show how its model writes calls, so none "
            "can be forced.",
            param,
        )
    return ToolUse(tools, choice, syntax, legacy)


def _choice(
    given: str | dict[str, Any] | None, param: str, tools: list[dict[str, Any]], many: bool
) -> Choice | None:
    names = frozenset(tool["function"]["name"] for tool in tools)
    if given == "none":
        return None
    if given in (None, "auto"):
        return Choice(names, forced=False, many=many)
    if given == "required" and param == "tool_choice":
        return Choice(names, forced=True, many=many)
    if not isinstance(given, dict):
        raise wrong(param, f"'{given:.40}' is not one of none, auto, required, or a function")
    if param == "tool_choice" and given.get("type") == "allowed_tools":
        return _allowed(given, names, many)
    name = _name(given if param == "function_call" else given.get("function"))
    if name is None or (param == "tool_choice" and given.get("type") != "function"):
        raise wrong(param, "must name a function")
    if name not in names:
        raise wrong(param, f"there is no function '{name:.64}' among the ones given")
    return Choice(frozenset({name}), forced=True, many=False)


def _allowed(given: dict[str, Any], names: frozenset[str], many: bool) -> Choice:
    param = "tool_choice.allowed_tools"
    allowed = given.get("allowed_tools")
    if not isinstance(allowed, dict) or allowed.get("mode") not in ("auto", "required"):
        raise wrong(param, "must have a mode, 'auto' or 'required', and tools")
    listed = allowed.get("tools")
    wanted = {
        _name(tool.get("function")) if isinstance(tool, dict) else None
        for tool in (listed if isinstance(listed, list) else [])
    }
    if not wanted or not wanted <= names:
        raise wrong(f"{param}.tools", "must name functions that are given in 'tools'")
    chosen = frozenset(name for name in wanted if name)
    return Choice(chosen, forced=allowed["mode"] == "required", many=many)


def _name(value: Any) -> str | None:
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def _unsupported(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="unsupported_value")
