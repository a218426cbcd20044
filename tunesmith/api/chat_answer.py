"""From the engine's tokens to the chat objects: whole, or chunk by chunk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field

from tunesmith.api.chat_request import Prepared
from tunesmith.serve.client import EngineClient
from tunesmith.serve.text import ChosenToken, TextStream, TokenText
from tunesmith.wire.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    Message,
    TokenLogprob,
    TopLogprob,
    Usage,
)


@dataclass(frozen=True)
class News:
    """What became known of a choice: more text, its tokens, and at last why it ended."""

    index: int
    text: str
    tokens: tuple[ChosenToken, ...]
    finish_reason: str | None


@dataclass
class Answer:
    """One answer in the making; `usage` is right once the news has ended."""

    id: str
    created: int
    prepared: Prepared
    include_usage: bool = False
    num_completion_tokens: int = field(default=0, init=False)

    @property
    def usage(self) -> Usage:
        num_prompt = len(self.prepared.generate.prompt_ids)
        return Usage(
            prompt_tokens=num_prompt,
            completion_tokens=self.num_completion_tokens,
            total_tokens=num_prompt + self.num_completion_tokens,
        )

    async def news(self, engine: EngineClient) -> AsyncGenerator[News, None]:
        """Runs the request; closing this iterator cancels it in the engine."""
        request = self.prepared.generate
        streams = {
            index: TextStream(
                self.prepared.tokenizer,
                self.prepared.stop,
                token_bytes=self.prepared.token_bytes,
            )
            for index in range(request.n)
        }
        async with engine.generate(request) as generation:
            async for delta in generation:
                stream = streams.get(delta.index)
                if stream is None:
                    continue  # ended by a stop string; these tokens were on their way
                self.num_completion_tokens += len(delta.token_ids)
                piece, finish = stream.push(delta.token_ids, delta.logprobs), delta.finish_reason
                text, tokens = piece.text, piece.tokens
                if finish is not None:
                    rest = stream.flush()
                    text, tokens = text + rest.text, tokens + rest.tokens
                if stream.stopped:
                    finish = "stop"
                    await generation.stop(delta.index)
                if text or tokens or finish:
                    yield News(delta.index, text, tokens, finish)
                if finish is not None:
                    del streams[delta.index]
                    if not streams:
                        return

    async def whole(self, news: AsyncIterator[News]) -> ChatCompletion:
        texts = [""] * self.prepared.generate.n
        tokens: list[list[ChosenToken]] = [[] for _ in texts]
        finish_reasons = ["stop"] * len(texts)
        async for item in news:
            texts[item.index] += item.text
            tokens[item.index] += item.tokens
            finish_reasons[item.index] = item.finish_reason or finish_reasons[item.index]
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.prepared.model,
            choices=[
                Choice(
                    index=index,
                    message=Message(content=text),
                    logprobs=self._logprobs(tokens[index]),
                    finish_reason=finish_reasons[index],
                )
                for index, text in enumerate(texts)
            ],
            usage=self.usage,
            system_fingerprint=self.prepared.fingerprint,
        )

    async def chunks(self, news: AsyncIterator[News]) -> AsyncIterator[bytes]:
        """The chunks as JSON: roles, pieces, ends, and the usage if it was asked for."""
        for index in range(self.prepared.generate.n):
            yield self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))
        async for item in news:
            if item.text or item.tokens:
                piece = ChunkChoice(
                    index=item.index,
                    delta=Delta(content=item.text),
                    logprobs=self._logprobs(item.tokens),
                )
                yield self._chunk(piece)
            if item.finish_reason is not None:
                end = ChunkChoice(index=item.index, delta=Delta(), finish_reason=item.finish_reason)
                yield self._chunk(end)
        if self.include_usage:
            yield self._chunk(usage=self.usage)

    def _chunk(self, *choices: ChunkChoice, usage: Usage | None = None) -> bytes:
        chunk = ChatCompletionChunk(
            id=self.id,
            created=self.created,
            model=self.prepared.model,
            system_fingerprint=self.prepared.fingerprint,
            choices=list(choices),
            usage=usage,
        )
        without = None if self.include_usage else {"usage"}
        return chunk.model_dump_json(exclude=without).encode()

    def _logprobs(self, tokens: Iterable[ChosenToken]) -> ChoiceLogprobs | None:
        if self.prepared.generate.top_logprobs is None:
            return None
        return ChoiceLogprobs(content=[_chosen(token) for token in tokens])


def _chosen(token: ChosenToken) -> TokenLogprob:
    return TokenLogprob(
        token=token.token,
        bytes=list(token.data),
        logprob=token.logprob,
        top_logprobs=[_top(other) for other in token.top],
    )


def _top(token: TokenText) -> TopLogprob:
    return TopLogprob(token=token.token, bytes=list(token.data), logprob=token.logprob)
