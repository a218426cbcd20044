"""Conversations to token ids: the one renderer that checks, counts, trains and serves.

An assistant turn is found by rendering the conversation before it with the generation prompt:
where that text ends, the turn begins, and with its stop token it ends. The text is cut there and
encoded piece by piece, when training as when serving. So the ids that a model is trained on are the
ids it is served with, by construction, and what is supervised is known by position, never by
searching for a template's markers.

Some templates rewrite earlier turns as the conversation goes on (Qwen3 drops their reasoning).
There a conversation gives one example for each turn, with the prompt that would be served.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tunesmith.data.conversation import Conversation
from tunesmith.data.conversation import RenderError as RenderError
from tunesmith.data.dialect import probe
from tunesmith.data.encode import START, Encoder, Marker
from tunesmith.data.formats import ChatRow
from tunesmith.data.messages import Message
from tunesmith.data.pair_rows import PairRow
from tunesmith.data.template import ChatTemplate, load_template, token_text
from tunesmith.data.tool_syntax import CallSyntax, probe_calls
from tunesmith.errors import BaseModelError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
)
"""Everything but generation_config.json that decides about ids."""


@dataclass(frozen=True)
class Example:
    """Token ids with a weight each: weights[i] is that of the loss of predicting ids[i].

    weights[0] is 0 (nothing predicts the first id) and the last weight is not.
    """

    ids: list[int]
    weights: list[float]
    number: int
    """The row it comes from, as in `ChatRow.number`."""
    num_shared: int = 0
    """Ids at its beginning that are counted with the example before it: the prompt of a pair."""

    @property
    def num_counted(self) -> int:
        return len(self.ids) - self.num_shared


class Renderer:
    """The tokenizer and chat template of one base model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, eos_ids: Set[Any]) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.vocab_size = max(
            tokenizer.get_vocab_size(with_added_tokens=False), *(number + 1 for number in added), 0
        )
        """One more than the largest id."""
        self._template = template
        self._encoder = Encoder(tokenizer)
        self._dialect = probe(template, self._encoder)
        self.stop_ids = frozenset(
            number
            for number, token in added.items()
            if number in eos_ids or token.content == self._dialect.stop_token
        )
        """Ids that end an answer."""
        stops = {added[number].content for number in self.stop_ids}
        begin = tokenizer.token_to_id(template.named_tokens.get("bos_token", ""))
        self.start_id = min(self.stop_ids, default=0) if begin is None else begin
        """What a text without any ids begins after."""
        self._stop = re.compile(f"(?<!{START})(?:{'|'.join(map(re.escape, stops))})")
        special = {token.content for token in added.values() if token.special} | stops
        written = {
            token.content
            for token in added.values()
            if not token.content.isspace() and token.content in template.literals
        }
        # What the model itself may have written, such as <think>, stays a token in its own turns.
        self._answer_marker = Marker(special)
        self._marker = Marker(special | written)
        self.control_tokens = frozenset(special | written)
        """Their spellings in users' text stay text."""
        self.call_syntax: CallSyntax | None = None
        """How the model writes tool calls, where its template shows that."""
        if self.has_tools:
            self.call_syntax = probe_calls(template, self._dialect.adapt, frozenset(stops))
        around = "".join(self.call_syntax.texts) if self.call_syntax else ""
        self.call_tokens = {
            token.content: number
            for number, token in added.items()
            if token.content in around and not token.content.isspace()
        }
        """The added tokens among that, with their ids."""

    @classmethod
    def load(cls, directory: Path) -> Renderer:
        """From a Hugging Face model directory; weights are not needed. Raises BaseModelError."""
        tokenizer = _load_tokenizer(directory)
        config = _read_object(directory / "special_tokens_map.json")
        config |= _read_object(directory / "tokenizer_config.json")
        configured = _read_object(directory / "generation_config.json").get("eos_token_id")
        named = tokenizer.token_to_id(token_text(config.get("eos_token")) or "")
        eos_ids = [*configured] if isinstance(configured, list) else [configured]
        return cls(tokenizer, load_template(directory, config), {*eos_ids, named})

    @property
    def preserves_history(self) -> bool:
        return self._dialect.preserves_history

    @property
    def answer_lead(self) -> str:
        """White space that answers begin with, as Mistral's do."""
        return self._dialect.turn_start if self._dialect.turn_start.isspace() else ""

    @property
    def has_tools(self) -> bool:
        return self._dialect.has_tools

    def prompt(
        self, messages: list[Message], tools: list[dict[str, Any]] | None = None
    ) -> list[int]:
        """The ids that the model continues with its answer. Raises RenderError.

        `messages` and `tools` are as `normalise_messages` and `normalise_tools` give them.
        """
        talk = self._conversation(messages, tools)
        segments = talk.prompt_segments(len(talk.messages))
        return [number for ids in self._encoder.encode(segments) for number in ids]

    def examples(self, row: ChatRow) -> list[Example]:
        """What a row teaches: one example, or one a turn where the template rewrites history.

        Raises RenderError, also if there is nothing to learn.
        """
        talk = self._conversation(row.messages, row.tools)
        learned = [index for index in talk.turns if talk.messages[index].get("weight", 1) != 0]
        if not learned:
            raise RenderError("there is nothing to learn: no assistant message has a weight")
        whole = self._whole(talk, learned, row.number)
        if whole is not None:
            return [whole]
        return [self._single(talk, index, row.number) for index in learned]

    def plain_prompt(self, text: str) -> list[int]:
        """The ids of a text that is continued as it stands: its control tokens are tokens.

        Begins as the tokenizer has texts begin, most often with a BOS token.
        """
        return list(self.tokenizer.encode(text, add_special_tokens=True).ids)

    def pair(self, row: PairRow) -> list[Example]:
        """The preferred answer and the rejected one, each behind the prompt. Raises RenderError."""
        [preferred], [rejected] = self.examples(row.preferred), self.examples(row.rejected)
        prompt = next(place for place, weight in enumerate(rejected.weights) if weight)
        return [preferred, replace(rejected, num_shared=prompt)]

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _conversation(
        self, messages: list[Message], tools: list[dict[str, Any]] | None
    ) -> Conversation:
        if not self.has_tools and (tools or any("tool_calls" in each for each in messages)):
            raise RenderError(
                "this base model's chat template has no place for tools; use a base with tools"
            )
        adapted = self._dialect.adapt(messages)
        marked = [self._mark(message) for message in adapted]
        tools = self._marker.mark(tools)
        return Conversation(self._template, self._stop, adapted, marked, tools)

    def _mark(self, message: Message) -> Message:
        marked = {
            key: self._marker.mark(value) for key, value in message.items() if key != "weight"
        }
        if message["role"] == "assistant":
            marked["content"] = self._answer_marker.mark(message["content"])
        return marked

    def _whole(self, talk: Conversation, learned: list[int], number: int) -> Example | None:
        """All turns in one example, or None where some turn does not stay as it was written."""
        count = learned[-1] + 1
        text = talk.text(count, generation_prompt=False)
        spans = talk.spans(text, count)
        if len(spans) < sum(index < count for index in talk.turns):
            return None
        if not all(
            talk.is_as_written(index, text[start:end])
            for index, start, end in spans
            if index in learned
        ):
            return None
        cuts = [0, *(cut for _, *span in spans for cut in span)]
        parts = self._encoder.encode([text[start:end] for start, end in pairwise(cuts)])
        ids: list[int] = []
        weights: list[float] = []
        # Prompt and turn alternate.
        for (index, _, _), prompt, turn in zip(spans, parts[::2], parts[1::2], strict=True):
            ids += prompt + turn
            weights += [0.0] * len(prompt)
            weights += self._weights(turn) if index in learned else [0.0] * len(turn)
        return _example(ids, weights, number)

    def _single(self, talk: Conversation, index: int, number: int) -> Example:
        """One turn after its prompt."""
        *prompt, turn = self._encoder.encode(
            [*talk.prompt_segments(index), self._turn_text(talk, index)]
        )
        ids = [each for part in prompt for each in part]
        return _example(ids + turn, [0.0] * len(ids) + self._weights(turn), number)

    def _turn_text(self, talk: Conversation, index: int) -> str:
        text = talk.turn_text(index)
        if text is None:
            # The template does not write this turn after its own generation prompt (which may open
            # a block of reasoning). The answer then follows the prompt as it stands.
            message = talk.marked[index]
            if "tool_calls" in message:
                raise RenderError(
                    "the base model's chat template cannot write an assistant message with tool "
                    "calls after its own generation prompt"
                )
            text = f"{self._dialect.turn_start}{message['content']}{self._dialect.turn_end}"
        stop = self._stop.search(text)
        return text[: stop.end()] if stop else text

    def _weights(self, turn: list[int]) -> list[float]:
        if not turn or turn[-1] not in self.stop_ids:
            raise RenderError(
                "the base model's chat template does not end an assistant message with a stop token"
            )
        return [1.0] * len(turn)


def _example(ids: list[int], weights: list[float], number: int) -> Example:
    """Ends after the last supervised id: what follows it teaches nothing."""
    weights[0] = 0.0
    end = len(weights)
    while end and not weights[end - 1]:
        end -= 1
    if end == 0:
        raise RenderError("there is nothing to learn: the answer is empty")
    return Example(ids[:end], weights[:end], number)


def _load_tokenizer(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise BaseModelError(
            f"{directory} has no tokenizer.json. Write it from the tokenizer files that are there: "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) with transformers."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise BaseModelError(f"{path} cannot be read: {error}. Copy it again.") from error
    # Some files carry the truncation and padding of the run that made them.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise BaseModelError(f"{path} is not valid JSON ({error}). Copy it again.") from error
    return value if isinstance(value, dict) else {}
