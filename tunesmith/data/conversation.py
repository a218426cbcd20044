"""One conversation and the text of its prefixes: where the assistant's turns begin and end."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from tunesmith.data.messages import Message, MessageError
from tunesmith.data.sandbox import TemplateRefusedError
from tunesmith.data.template import ChatTemplate

# Rendered prefixes of one conversation that are kept for a second use, in characters.
MAX_KEPT_CHARS = 32 << 20


class RenderError(MessageError):
    """A conversation that this base's template cannot express."""

    def __init__(self, text: str) -> None:
        super().__init__("messages", text)


class Conversation:
    """A conversation in the template's dialect, with the text of each of its prefixes."""

    def __init__(
        self,
        template: ChatTemplate,
        stop: re.Pattern[str],
        messages: list[Message],
        marked: list[Message],
        tools: list[dict[str, Any]] | None,
    ) -> None:
        self.messages = messages
        self.marked = marked
        self.turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        self._template = template
        self._stop = stop
        self._tools = tools
        # Messages that are no more than this are put together without the template.
        self._contents = [message["content"] for message in marked]
        is_plain = tools is None and all(list(each) == ["role", "content"] for each in marked)
        self._roles = tuple(message["role"] for message in marked) if is_plain else None
        self._texts: dict[tuple[int, bool], str] = {}
        self._num_kept = 0

    def text(self, count: int, generation_prompt: bool) -> str:
        """The first `count` messages as text. Raises RenderError."""
        key = (count, generation_prompt)
        if key in self._texts:
            return self._texts[key]
        text = self._written(count, generation_prompt)
        if self._num_kept + len(text) <= MAX_KEPT_CHARS:
            self._texts[key] = text
            self._num_kept += len(text)
        return text

    def _written(self, count: int, generation_prompt: bool) -> str:
        if self._roles is not None:
            roles = self._roles[:count]
            filled = self._template.filled(roles, self._contents, generation_prompt)
            if filled is not None:
                return filled
        try:
            return self._template.text(self.marked[:count], self._tools, generation_prompt)
        except TemplateRefusedError as error:
            raise RenderError(f"the base model's chat template refuses it: {error}") from error

    def turn_text(self, index: int) -> str | None:
        """What the template writes for a turn after its prompt; None if it changes the prompt."""
        prompt = self.text(index, generation_prompt=True)
        whole = self.text(index + 1, generation_prompt=False)
        return whole[len(prompt) :] if whole.startswith(prompt) else None

    def is_as_written(self, index: int, text: str) -> bool:
        """Whether `text`, through a turn's stop token, is the turn as it is written when last."""
        message = self.marked[index]
        if "tool_calls" not in message and message["content"].strip() in text:
            return True
        return (self.turn_text(index) or "").startswith(text)

    def prompt_segments(self, count: int) -> list[str]:
        """The text before an answer to the first `count` messages, cut at the turns in it."""
        text = self.text(count, generation_prompt=True)
        cuts = [0, *(cut for _, *span in self.spans(text, count) for cut in span), len(text)]
        return [text[start:end] for start, end in pairwise(cuts)]

    def spans(self, text: str, count: int) -> list[tuple[int, int, int]]:
        """(index, start, end) of those of the first `count` turns that follow their prompt in it.

        A turn starts where its prompt ends and ends with its first stop token.
        """
        result: list[tuple[int, int, int]] = []
        position = 0
        for index in self.turns:
            if index >= count:
                break
            try:
                prompt = self.text(index, generation_prompt=True)
            except RenderError:
                continue
            stop = self._stop.search(text, len(prompt))
            if stop and position <= len(prompt) and text.startswith(prompt):
                position = stop.end()
                result.append((index, len(prompt), position))
        return result
