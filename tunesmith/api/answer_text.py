"""One request at the engine, as text: detokenised, cut at stop strings, counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from tunesmith.api.text_stream import ChosenToken, TextStream, TokenBytes
from tunesmith.errors import BadRequest
from tunesmith.serve.client import EngineClient, Generation
from tunesmith.serve.protocol import GenRequest, InvalidGrammar
from tunesmith.wire.chat import PromptTokensDetails, Usage


@dataclass(slots=True)
class News:
    """What became known of a choice: more text, its tokens, and at last why it ended."""

    index: int
    text: str
    tokens: tuple[ChosenToken, ...]
    finish_reason: str | None


@dataclass
class AnswerText:
    """Runs `request`. Its counts are right once the news has ended."""

    request: GenRequest
    stop: list[str]
    tokenizer: Tokenizer
    token_bytes: TokenBytes
    shown_ids: frozenset[int] = frozenset()
    """Special tokens that are part of the text all the same."""
    grammar_param: str = "response_format"
    """What the request's grammar was made from."""
    num_completion_tokens: int = field(default=0, init=False)
    num_cached_tokens: int = field(default=0, init=False)
    _generation: Generation | None = field(default=None, init=False)
    _streams: dict[int, TextStream] = field(default_factory=dict, init=False)

    @property
    def usage(self) -> Usage:
        num_prompt = len(self.request.prompt_ids)
        return Usage(
            prompt_tokens=num_prompt,
            completion_tokens=self.num_completion_tokens,
            total_tokens=num_prompt + self.num_completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.num_cached_tokens),
        )

    def begin(self, engine: EngineClient) -> Generation:
        """Sends the request to the engine; closing what this returns cancels it there."""
        self._generation = engine.generate(self.request)
        return self._generation

    async def news(self) -> AsyncGenerator[News, None]:
        """What the engine answers, once it has the request; closing this cancels it, too."""
        assert self._generation is not None
        self._streams = {index: self._stream() for index in range(self.request.n)}
        try:
            async with self._generation as generation:
                async for delta in generation:
                    stream = self._streams.get(delta.index)
                    if stream is None:
                        continue  # ended on this side; these tokens were on their way
                    self.num_completion_tokens += len(delta.token_ids)
                    piece = stream.push(delta.token_ids, delta.logprobs)
                    text, tokens = piece.text, piece.tokens
                    finish: str | None = delta.finish_reason
                    if finish is not None:
                        rest = stream.flush()
                        text, tokens = text + rest.text, tokens + rest.tokens
                    if stream.stopped:
                        finish = "stop"
                        generation.stop(delta.index)
                    if finish is not None:
                        del self._streams[delta.index]
                    if text or tokens or finish:
                        yield News(delta.index, text, tokens, finish)
                if generation.done is not None:
                    self.num_cached_tokens = generation.done.cached_tokens
        except InvalidGrammar as error:
            raise BadRequest(
                f"Invalid schema: {error.message}",
                param=self.grammar_param,
                code="invalid_json_schema",
            ) from None

    def end(self, index: int) -> None:
        """Ends one choice: no more news of it."""
        if self._streams.pop(index, None) is not None and self._generation is not None:
            self._generation.stop(index)

    def _stream(self) -> TextStream:
        return TextStream(
            self.tokenizer, self.stop, token_bytes=self.token_bytes, shown_ids=self.shown_ids
        )
