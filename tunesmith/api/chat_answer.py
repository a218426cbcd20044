"""From the engine's text to the chat objects: whole, or chunk by chunk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

from tunesmith.api.answer_text import News
from tunesmith.api.chat_request import Prepared
from tunesmith.api.text_chunk import TextChunks
from tunesmith.api.text_stream import ChosenToken, TokenText
from tunesmith.data.tool_parser import Arguments, Broken, CallParser, CallStart, Event, Text
from tunesmith.ids import TOOL_CALL, Rng, new_id
from tunesmith.wire.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    Function,
    FunctionDelta,
    Message,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)


@dataclass
class Draft:
    """One choice of a whole answer, as far as it has come."""

    text: str = ""
    calls: dict[int, ToolCall] = field(default_factory=dict)
    tokens: list[ChosenToken] = field(default_factory=list)
    finish_reason: str = "stop"

    def add(self, event: Event, rng: Rng) -> None:
        if isinstance(event, Text):
            self.text += event.text
        elif isinstance(event, CallStart):
            function = Function(name=event.name, arguments="")
            self.calls[event.index] = ToolCall(id=new_id(TOOL_CALL, rng), function=function)
        elif isinstance(event, Arguments):
            self.calls[event.index].function.arguments += event.text
        else:
            del self.calls[event.index]
            self.text += event.raw


@dataclass
class Answer:
    """One answer in the making."""

    id: str
    created: int
    prepared: Prepared
    rng: Rng
    include_usage: bool = False

    def __post_init__(self) -> None:
        num_choices = self.prepared.text.request.n
        self._parsers = [self._parser() for _ in range(num_choices)]
        self._text_chunk = TextChunks(
            lambda index, text: self._chunk(ChunkChoice(index=index, delta=Delta(content=text)))
        )

    async def whole(self, news: AsyncIterator[News]) -> ChatCompletion:
        drafts = [Draft() for _ in self._parsers]
        async for item in news:
            draft = drafts[item.index]
            events, finish_reason = self._read(item)
            for event in events:
                draft.add(event, self.rng)
            draft.tokens += item.tokens
            draft.finish_reason = finish_reason or draft.finish_reason
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.prepared.model,
            choices=[self._choice(index, draft) for index, draft in enumerate(drafts)],
            usage=self.prepared.usage,
            service_tier=self.prepared.demand.service_tier,
            system_fingerprint=self.prepared.fingerprint,
        )

    async def chunks(self, news: AsyncIterator[News]) -> AsyncGenerator[bytes, None]:
        """The chunks as JSON: roles, pieces, ends, and the usage if it was asked for."""
        for index in range(len(self._parsers)):
            yield self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))
        async for item in news:
            events, finish_reason = self._read(item)
            deltas = list(self._deltas(events))
            if item.tokens and not deltas:
                deltas = [Delta(content="")]
            for place, delta in enumerate(deltas):
                logprobs = self._logprobs(item.tokens if place == 0 else ())
                if delta.content and logprobs is None:
                    yield self._text_chunk(item.index, delta.content)
                    continue
                yield self._chunk(ChunkChoice(index=item.index, delta=delta, logprobs=logprobs))
            if finish_reason is not None:
                end = ChunkChoice(index=item.index, delta=Delta(), finish_reason=finish_reason)
                yield self._chunk(end)
        if self.include_usage:
            yield self._chunk(usage=self.prepared.usage)

    def _parser(self) -> CallParser | None:
        tools = self.prepared.tools
        if tools is None or tools.syntax is None:
            return None
        return CallParser(tools.syntax, tools.choice.names, many=tools.choice.many)

    def _read(self, item: News) -> tuple[list[Event], str | None]:
        """What a piece of text means, and the reason to finish if it is the last."""
        parser, reason = self._parsers[item.index], item.finish_reason
        if parser is None:
            return ([Text(item.text)] if item.text else []), reason
        events = parser.push(item.text)
        if parser.done and reason is None:
            # All that was wanted is there; what the model would add is nobody's.
            self.prepared.text.end(item.index)
            reason = "stop"
        if reason is not None:
            events += parser.flush(cut=reason == "length")
            if reason == "stop" and parser.has_call:
                legacy = self.prepared.tools is not None and self.prepared.tools.legacy
                reason = "function_call" if legacy else "tool_calls"
        return events, reason

    def _choice(self, index: int, draft: Draft) -> Choice:
        calls = list(draft.calls.values())
        legacy = self.prepared.tools is not None and self.prepared.tools.legacy
        message = Message(
            content=None if calls and not draft.text else draft.text,
            tool_calls=calls if calls and not legacy else None,
            function_call=calls[0].function if calls and legacy else None,
        )
        return Choice(
            index=index,
            message=message,
            logprobs=self._logprobs(draft.tokens),
            finish_reason=draft.finish_reason,
        )

    def _deltas(self, events: Iterable[Event]) -> Iterator[Delta]:
        for event in events:
            if isinstance(event, Text):
                yield Delta(content=event.text)
            elif isinstance(event, CallStart):
                call_id = new_id(TOOL_CALL, self.rng)
                yield self._call(event.index, FunctionDelta(name=event.name, arguments=""), call_id)
            elif isinstance(event, Arguments):
                yield self._call(event.index, FunctionDelta(arguments=event.text))
            else:
                # Its beginning has been sent as a call and cannot be taken back.
                assert isinstance(event, Broken)

    def _call(self, index: int, function: FunctionDelta, call_id: str | None = None) -> Delta:
        if self.prepared.tools is not None and self.prepared.tools.legacy:
            return Delta(function_call=function)
        call = ToolCallDelta(
            index=index, id=call_id, type="function" if call_id else None, function=function
        )
        return Delta(tool_calls=[call])

    def _chunk(self, *choices: ChunkChoice, usage: Usage | None = None) -> bytes:
        chunk = ChatCompletionChunk(
            id=self.id,
            created=self.created,
            model=self.prepared.model,
            service_tier=self.prepared.demand.service_tier,
            system_fingerprint=self.prepared.fingerprint,
            choices=list(choices),
            usage=usage,
        )
        without = None if self.include_usage else {"usage"}
        return chunk.model_dump_json(exclude=without).encode()

    def _logprobs(self, tokens: Iterable[ChosenToken]) -> ChoiceLogprobs | None:
        if self.prepared.text.request.top_logprobs is None:
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
