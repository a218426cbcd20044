"""What a chat template understands, found by trying it; conversations are adapted accordingly.

Templates differ in whether they know system messages, tools, arguments as objects, long tool-call
ids. They do not say so, and they fail late. Hence a few probes when a base is loaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tunesmith.data import strict_json
from tunesmith.data.encode import Encoder
from tunesmith.data.messages import Message
from tunesmith.data.sandbox import TemplateRefusedError
from tunesmith.data.template import ChatTemplate
from tunesmith.errors import BaseModelError

USER: Message = {"role": "user", "content": "Which way to Oslo?"}
ANSWER: Message = {"role": "assistant", "content": "Northwards"}
SYSTEM: Message = {"role": "system", "content": "Tersely"}
TOOL = {
    "type": "function",
    "function": {
        "name": "find_way",
        "description": "Finds a way",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL_ID = "call_0123456789abcdef"
TOOL_TALK: list[Message] = [
    USER,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": CALL_ID,
                "type": "function",
                "function": {"name": "find_way", "arguments": '{"city": "Bergen"}'},
            }
        ],
    },
    {"role": "tool", "content": "Seawards", "tool_call_id": CALL_ID},
    ANSWER,
]
# Mistral's templates refuse other lengths.
SHORT_ID_CHARS = 9


@dataclass(frozen=True)
class Dialect:
    """How conversations must look for one template."""

    turn_start: str
    """What the template writes between its generation prompt and an answer, such as a space."""
    turn_end: str
    """What it writes after an answer, up to and including the stop token."""
    stop_token: str
    preserves_history: bool = True
    """What was written before a turn stays as it is when the conversation goes on."""
    knows_system: bool = True
    """False: a leading system message is written at the head of the first user message."""
    knows_developer: bool = True
    """False: developer messages are written as system messages."""
    has_tools: bool = False
    arguments_as_objects: bool = True
    short_call_ids: bool = False

    def adapt(self, messages: list[Message]) -> list[Message]:
        """The messages as the template wants them (new ones where something changes)."""
        result = [self._adapt_one(message) for message in messages]
        return result if self.knows_system else _fold_system(result)

    def _adapt_one(self, message: Message) -> Message:
        if message["role"] == "developer" and not self.knows_developer:
            return {**message, "role": "system"}
        if self.short_call_ids and "tool_call_id" in message:
            return {**message, "tool_call_id": _short(message["tool_call_id"])}
        if "tool_calls" in message:
            return {**message, "tool_calls": [self._call(call) for call in message["tool_calls"]]}
        return message

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        arguments = call["function"]["arguments"]
        return {
            **call,
            "id": _short(call["id"]) if self.short_call_ids else call["id"],
            "function": {
                **call["function"],
                "arguments": _as_object(arguments) if self.arguments_as_objects else arguments,
            },
        }


def probe(template: ChatTemplate, encoder: Encoder) -> Dialect:
    """Tries the template. Raises BaseModelError if no conversation can be trained with it."""
    before, after = _around_answer(template)
    stop_token = encoder.first_added(after)
    if stop_token is None:
        raise BaseModelError(
            "The chat template does not end an answer with a special token, so a tuned model "
            "would never learn to stop. Let it write eos_token after each assistant message."
        )
    prompt = _try(template, [USER], generation_prompt=True) or ""
    plain = Dialect(
        turn_start=before[len(prompt) :] if before.startswith(prompt) else "",
        turn_end=after[: after.index(stop_token) + len(stop_token)],
        stop_token=stop_token,
        preserves_history=_preserves_history(template),
        knows_system=SYSTEM["content"] in (_try(template, [SYSTEM, USER]) or ""),
        knows_developer="developer" in template.literals,
    )
    for arguments_as_objects in (True, False):
        for short_call_ids in (False, True):
            dialect = replace(
                plain,
                has_tools=True,
                arguments_as_objects=arguments_as_objects,
                short_call_ids=short_call_ids,
            )
            if _renders_tools(template, dialect):
                return dialect
    return plain


def _around_answer(template: ChatTemplate) -> tuple[str, str]:
    try:
        text = template.text([USER, ANSWER], None, False)
    except TemplateRefusedError as error:
        raise BaseModelError(
            f"The chat template fails on a plain question and answer: {error}. "
            "Replace it by the template of the model's family."
        ) from error
    before, found, after = text.rpartition(ANSWER["content"])
    if not found:
        raise BaseModelError(
            "The chat template leaves out what the assistant says. "
            "Replace it by the template of the model's family."
        )
    return before, after


def _preserves_history(template: ChatTemplate) -> bool:
    talk = [USER, ANSWER, USER, ANSWER]
    texts = [
        _try(template, talk[:count], generation_prompt)
        for count, generation_prompt in ((1, True), (3, True), (4, False))
    ]
    return all(
        earlier is not None and later is not None and later.startswith(earlier)
        for earlier, later in pairwise(texts)
    )


def _renders_tools(template: ChatTemplate, dialect: Dialect) -> bool:
    text = _try(template, dialect.adapt(TOOL_TALK), tools=[TOOL]) or ""
    shown = ("Finds a way", "Bergen", "Seawards")
    # Python's own spelling of an object ('city') is no JSON.
    return all(word in text for word in shown) and "'city'" not in text


def _try(
    template: ChatTemplate,
    messages: list[Message],
    generation_prompt: bool = False,
    tools: list[dict[str, Any]] | None = None,
) -> str | None:
    try:
        return template.text(messages, tools, generation_prompt)
    except TemplateRefusedError:
        return None


def _fold_system(messages: list[Message]) -> list[Message]:
    num_system = 0
    while num_system < len(messages) and messages[num_system]["role"] == "system":
        num_system += 1
    if num_system == 0:
        return messages
    head = [message["content"] for message in messages[:num_system]]
    rest = messages[num_system:]
    if rest and rest[0]["role"] == "user":
        head.append(rest[0]["content"])
        rest = rest[1:]
    return [{"role": "user", "content": "\n\n".join(head)}, *rest]


def _as_object(arguments: str) -> Any:
    try:
        return strict_json.loads(arguments)
    except strict_json.JsonError:
        return arguments


def _short(call_id: str) -> str:
    if len(call_id) == SHORT_ID_CHARS and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:SHORT_ID_CHARS]
