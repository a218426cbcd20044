"""Chat messages and tools: checked and brought into one form, for training rows and requests.

The form: every message has `role` and `content` (a string); `name`, `tool_calls`, `tool_call_id`
and `weight` are there only where they say something. Text parts are joined, the deprecated
functions become tools, and a refusal becomes the content that it stands for.
"""

from __future__ import annotations

import re
from typing import Any

from tunesmith.data import strict_json

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
KEYS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {
        "role",
        "content",
        "name",
        "weight",
        "tool_calls",
        "function_call",
        "refusal",
    },
    "tool": {"role", "content", "name", "tool_call_id"},
    "function": {"role", "content", "name"},
}
# In texts of these roles nothing can be wrong.
PLAIN_ROLES = ("user", "assistant", "system", "developer")
KNOWN_KEYS = set().union(*KEYS.values())
# The most a request to the public service may hold; rendering costs its square.
MAX_MESSAGES = 2048
MAX_TOOLS = 128
TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
PART_SEPARATOR = "\n"
# The public service's own words.
MISSING_ROLE = "Discriminator 'role' is missing in value"

Message = dict[str, Any]


class MessageError(ValueError):
    """What is wrong with one message or tool.

    `path` leads there from the request's root ("messages[2].content"), `text` says it in a
    sentence, `index` is the message's place (from 0), and `extra_key` is set if a key should not
    be there.
    """

    def __init__(
        self, path: str, text: str, *, index: int | None = None, extra_key: str | None = None
    ) -> None:
        super().__init__(f"Invalid '{path}': {text}")
        self.path = path
        self.text = text
        self.index = index
        self.extra_key = extra_key


def is_plain(message: Any) -> bool:
    """Whether it is a text and no more, as nearly all messages are, and so in the form already."""
    return (
        type(message) is dict
        and len(message) == 2
        and message.get("role") in PLAIN_ROLES
        and type(message.get("content")) is str
    )


def normalise_messages(messages: Any, *, training: bool = False) -> list[Message]:
    """The messages in the form above, or MessageError for the first that is wrong.

    In `training` data unknown keys are refused and `weight` is known; requests may carry whatever
    clients echo back (annotations, audio: null), but no weight.
    """
    if not isinstance(messages, list) or not messages:
        raise MessageError("messages", "must be a non-empty list of messages")
    if len(messages) > MAX_MESSAGES:
        raise MessageError("messages", f"holds {len(messages)} messages; at most {MAX_MESSAGES}")
    call_ids: list[str] = []
    result = []
    for index, message in enumerate(messages):
        if is_plain(message):
            result.append({"role": message["role"], "content": message["content"]})
            continue
        reader = _Reader(index, message, training)
        normal = reader.read(call_ids)
        call_ids += [call["id"] for call in normal.get("tool_calls", ())]
        result.append(normal)
    return result


def normalise_tools(tools: Any, functions: Any = None) -> list[dict[str, Any]] | None:
    """The tools (deprecated `functions` turned into tools); None if there are none."""
    if functions is not None:
        if not isinstance(functions, list):
            raise MessageError("functions", "must be a list")
        if not tools:
            tools = [{"type": "function", "function": function} for function in functions]
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list):
        raise MessageError("tools", "must be a list")
    if len(tools) > MAX_TOOLS:
        raise MessageError("tools", f"holds {len(tools)} tools; at most {MAX_TOOLS}")
    for index, tool in enumerate(tools):
        _check_tool(f"tools[{index}]", tool)
    return tools


def _check_tool(path: str, tool: Any) -> None:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise MessageError(path, "must be an object with type 'function'")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise MessageError(f"{path}.function", "must be an object with a name")
    name = function.get("name")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise MessageError(
            f"{path}.function.name",
            "must be 1 to 64 letters, digits, underscores, dots or dashes",
        )
    if not isinstance(function.get("description") or "", str):
        raise MessageError(f"{path}.function.description", "must be a string")
    if not isinstance(function.get("parameters") or {}, dict):
        raise MessageError(f"{path}.function.parameters", "must be an object (a JSON schema)")


class _Reader:
    """Reads one message; every error carries its place."""

    def __init__(self, index: int, message: Any, training: bool) -> None:
        self._index = index
        self._training = training
        if not isinstance(message, dict):
            raise self._error("", "must be an object with a role and content")
        self._message = message

    def read(self, call_ids: list[str]) -> Message:
        """The message in its one form; `call_ids` are those of the tool calls before it."""
        role = self._role()
        self._check_keys(role)
        result: Message = {"role": role, "content": ""}
        name = self._message.get("name")
        if name is not None:
            if not isinstance(name, str):
                raise self._error("name", "must be a string")
            result["name"] = name
        if role == "assistant":
            self._read_assistant(result)
        elif role == "tool":
            result["tool_call_id"] = self._tool_call_id(call_ids)
            result["content"] = self._text("content")
        elif role == "function":
            if name is None or not call_ids:
                raise self._error("name", "must name the function called before it")
            result |= {"role": "tool", "tool_call_id": call_ids[-1]}
            if self._message.get("content") is not None:
                result["content"] = self._text("content")
        else:
            result["content"] = self._text("content")
        return result

    def _error(self, field: str, text: str, extra_key: str | None = None) -> MessageError:
        path = f"messages[{self._index}]" + (f".{field}" if field else "")
        sentence = f"'{field}' {text}" if field else text
        return MessageError(path, sentence, index=self._index, extra_key=extra_key)

    def _role(self) -> str:
        role = self._message.get("role")
        if role is None:
            path = f"messages[{self._index}].role"
            raise MessageError(path, MISSING_ROLE, index=self._index)
        if not isinstance(role, str) or role not in ROLES:
            raise self._error("role", f"is {role!r:.40}, not one of {', '.join(ROLES)}")
        return role

    def _check_keys(self, role: str) -> None:
        if not self._training:
            if self._message.get("weight") is not None:
                raise self._error("weight", "belongs in training data only")
            return
        for key, value in self._message.items():
            if key not in KEYS[role] and not (value is None and key in KNOWN_KEYS):
                raise self._error(key[:64], "is not a key of this message", extra_key=key[:64])

    def _read_assistant(self, result: Message) -> None:
        calls = self._tool_calls()
        if calls:
            result["tool_calls"] = calls
        content = self._message.get("content")
        refusal = self._message.get("refusal")
        if refusal is not None and not isinstance(refusal, str):
            raise self._error("refusal", "must be a string or null")
        if content is not None:
            result["content"] = self._text("content")
        elif refusal is not None:
            result["content"] = refusal
        elif not calls:
            raise self._error("content", "may be null only beside tool_calls or a refusal")
        weight = self._message.get("weight")
        if weight is not None:
            if isinstance(weight, bool) or weight not in (0, 1):
                raise self._error("weight", "must be 0 or 1")
            result["weight"] = int(weight)

    def _text(self, field: str) -> str:
        """A string, or a list of text parts joined."""
        value = self._message.get(field)
        if isinstance(value, str):
            return value
        if not isinstance(value, list) or not value:
            raise self._error(field, "must be a string or a list of text parts")
        return PART_SEPARATOR.join(
            self._part(f"{field}[{place}]", part) for place, part in enumerate(value)
        )

    def _part(self, field: str, part: Any) -> str:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal") and isinstance(part.get(kind), str):
            return str(part[kind])
        if isinstance(kind, str) and kind not in ("text", "refusal"):
            raise self._error(field, f"is of type '{kind:.40}'; only text is supported here")
        raise self._error(field, "must be a text part: {'type': 'text', 'text': ...}")

    def _tool_call_id(self, call_ids: list[str]) -> str:
        value = self._message.get("tool_call_id")
        if not isinstance(value, str) or not value:
            raise self._error("tool_call_id", "must name the tool call that this message answers")
        if value not in call_ids:
            raise self._error(
                "tool_call_id", f"'{value:.60}' is no tool call of an assistant message before it"
            )
        return value

    def _tool_calls(self) -> list[dict[str, Any]]:
        calls = self._message.get("tool_calls")
        legacy = self._message.get("function_call")
        if calls is None and legacy is not None:
            call_id = f"call_{self._index}"
            return [self._function_call("function_call", legacy, call_id)]
        if calls is None:
            return []
        if not isinstance(calls, list):
            raise self._error("tool_calls", "must be a list")
        return [self._tool_call(place, call) for place, call in enumerate(calls)]

    def _tool_call(self, place: int, call: Any) -> dict[str, Any]:
        field = f"tool_calls[{place}]"
        if not isinstance(call, dict) or call.get("type", "function") != "function":
            raise self._error(field, "must be an object with type 'function'")
        call_id = call.get("id", f"call_{self._index}_{place}")
        if not isinstance(call_id, str) or not call_id:
            raise self._error(f"{field}.id", "must be a non-empty string")
        return self._function_call(f"{field}.function", call.get("function"), call_id)

    def _function_call(self, field: str, function: Any, call_id: str) -> dict[str, Any]:
        if not isinstance(function, dict):
            raise self._error(field, "must be an object with name and arguments")
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not name:
            raise self._error(f"{field}.name", "must be a non-empty string")
        if not isinstance(arguments, str):
            raise self._error(
                f"{field}.arguments", "must be a JSON string, such as json.dumps(arguments) gives"
            )
        arguments = arguments or "{}"
        # A model may have written broken arguments; a request that echoes them is still answered.
        if self._training and not _holds_object(arguments):
            raise self._error(f"{field}.arguments", "must be a string that holds a JSON object")
        return {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }


def _holds_object(text: str) -> bool:
    try:
        return isinstance(strict_json.loads(text), dict)
    except strict_json.JsonError:
        return False
