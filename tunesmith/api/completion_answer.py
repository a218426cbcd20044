"""From the engine's text to legacy completions: whole, or chunk by chunk."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from tunesmith.api.answer_text import News
from tunesmith.api.completion_request import PreparedCompletion, PromptRun
from tunesmith.api.merged import merged
from tunesmith.api.text_chunk import TextChunks
from tunesmith.api.text_stream import ChosenToken, TokenText
from tunesmith.serve.client import EngineClient
from tunesmith.serve.protocol import TokenLogprob
from tunesmith.wire.chat import Usage
from tunesmith.wire.completions import Completion, CompletionChoice, LegacyLogprobs

# Prompts of one request at work at the same time; the engine's queue is for everybody.
MAX_AT_ONCE = 32


@dataclass
class Offsets:
    """Where each token begins in the text, counted in characters."""

    place: int = 0
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def next(self, data: bytes) -> int:
        """The place of a token of these bytes; the following one is behind it."""
        start = self.place
        self.place += len(self._decoder.decode(data))
        return start


@dataclass
class Draft:
    """One choice as far as it has come."""

    text: str = ""
    tokens: list[ChosenToken] = field(default_factory=list)
    finish_reason: str = "length"

    @property
    def mean_logprob(self) -> float:
        total = sum(token.logprob for token in self.tokens)
        return total / max(len(self.tokens), 1)


@dataclass
class CompletionAnswer:
    id: str
    created: int
    prepared: PreparedCompletion
    include_usage: bool = False

    def __post_init__(self) -> None:
        self._scores: dict[int, list[TokenLogprob]] = {}
        self._text_chunk = TextChunks(self._render_text)

    def news(self, engine: EngineClient) -> AsyncGenerator[tuple[int, News], None]:
        """News of all prompts, each with the prompt's number; prompts without any give one."""
        runs = enumerate(self.prepared.runs)
        return merged([self._of_prompt(engine, *item) for item in runs], MAX_AT_ONCE)

    async def _of_prompt(
        self, engine: EngineClient, number: int, run: PromptRun
    ) -> AsyncGenerator[tuple[int, News], None]:
        if run.score is not None:
            self._scores[number] = await engine.score(run.score)
        if run.text is None:
            for index in range(self.prepared.num_drawn):
                yield number, News(index, "", (), "length")
            return
        run.text.begin(engine)
        async with aclosing(run.text.news()) as news:
            async for item in news:
                yield number, item

    async def whole(self, news: AsyncIterator[tuple[int, News]]) -> Completion:
        drafts = [[Draft() for _ in range(self.prepared.num_drawn)] for _ in self.prepared.runs]
        async for number, item in news:
            draft = drafts[number][item.index]
            draft.text += item.text
            draft.tokens += item.tokens
            draft.finish_reason = item.finish_reason or draft.finish_reason
        choices: list[CompletionChoice] = []
        for number, found in enumerate(drafts):
            best = sorted(found, key=lambda draft: -draft.mean_logprob)
            shown = best if self.prepared.num_drawn > self.prepared.num_choices else found
            for draft in shown[: self.prepared.num_choices]:
                choices.append(self._whole_choice(len(choices), number, draft))
        return self._completion(choices, self.prepared.usage)

    async def chunks(self, news: AsyncIterator[tuple[int, News]]) -> AsyncGenerator[bytes, None]:
        offsets: dict[tuple[int, int], Offsets] = {}
        async for number, item in news:
            key, index = (number, item.index), number * self.prepared.num_choices + item.index
            logprobs = None
            text = ""
            if key not in offsets:
                offsets[key] = self._offsets(number)
                if self.prepared.echo:
                    text = self.prepared.runs[number].prompt.text
                    logprobs = self._prompt_logprobs(number)
            text += item.text
            logprobs = self._add(logprobs, item.tokens, offsets[key])
            if item.tokens or item.finish_reason or logprobs:
                choice = CompletionChoice(
                    index=index, text=text, logprobs=logprobs, finish_reason=item.finish_reason
                )
                yield self._json(self._completion([choice], None))
            elif text:
                yield self._text_chunk(index, text)
        if self.include_usage:
            yield self._json(self._completion([], self.prepared.usage))

    def _render_text(self, index: int, text: str) -> bytes:
        choice = CompletionChoice(index=index, text=text, finish_reason=None)
        return self._json(self._completion([choice], None))

    def _whole_choice(self, index: int, number: int, draft: Draft) -> CompletionChoice:
        text, logprobs = draft.text, None
        if self.prepared.echo:
            text = self.prepared.runs[number].prompt.text + text
            logprobs = self._prompt_logprobs(number)
        logprobs = self._add(logprobs, draft.tokens, self._offsets(number))
        return CompletionChoice(
            index=index, text=text, logprobs=logprobs, finish_reason=draft.finish_reason
        )

    def _offsets(self, number: int) -> Offsets:
        return Offsets(len(self.prepared.runs[number].prompt.text))

    def _prompt_logprobs(self, number: int) -> LegacyLogprobs | None:
        if self.prepared.num_logprobs is None:
            return None
        prompt = self.prepared.runs[number].prompt
        logprobs, offsets = _nothing(), Offsets()
        scores = [None, *self._scores.get(number, [])]
        for place, (token_id, score) in enumerate(zip(prompt.ids, scores, strict=True)):
            data = self.prepared.token_bytes(token_id)
            # What the tokenizer put before the text has no place in it.
            start = offsets.next(b"" if place < prompt.num_added else data)
            if score is None:
                _append(logprobs, _name(data), None, None, start)
            else:
                top = {self._name(other): value for other, value in score.top}
                top.setdefault(_name(data), score.logprob)
                _append(logprobs, _name(data), score.logprob, top, start)
        return logprobs

    def _add(
        self, logprobs: LegacyLogprobs | None, tokens: Iterable[ChosenToken], offsets: Offsets
    ) -> LegacyLogprobs | None:
        if self.prepared.num_logprobs is None:
            return None
        logprobs = logprobs or _nothing()
        for token in tokens:
            top = {_spell(other): other.logprob for other in token.top}
            top.setdefault(_spell(token), token.logprob)
            _append(logprobs, _spell(token), token.logprob, top, offsets.next(token.data))
        return logprobs

    def _name(self, token_id: int) -> str:
        return _name(self.prepared.token_bytes(token_id))

    def _completion(self, choices: list[CompletionChoice], usage: Usage | None) -> Completion:
        return Completion(
            id=self.id,
            created=self.created,
            model=self.prepared.model,
            choices=choices,
            usage=usage,
            system_fingerprint=self.prepared.fingerprint,
        )

    def _json(self, chunk: Completion) -> bytes:
        without = None if chunk.usage is not None else {"usage"}
        return chunk.model_dump_json(exclude=without).encode()


def _nothing() -> LegacyLogprobs:
    return LegacyLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])


def _append(
    logprobs: LegacyLogprobs,
    token: str,
    logprob: float | None,
    top: dict[str, float] | None,
    start: int,
) -> None:
    logprobs.tokens.append(token)
    logprobs.token_logprobs.append(logprob)
    logprobs.top_logprobs.append(top)
    logprobs.text_offset.append(start)


def _spell(token: TokenText) -> str:
    return _name(token.data)


def _name(data: bytes) -> str:
    """A token's text; of one that is only part of a character, its bytes, as the service does."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
