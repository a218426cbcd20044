"""Chat completions as the public API shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from tunesmith.wire.requests import Metadata
from tunesmith.wire.sampling import Sampling, UsedTier


def _absent(value: object) -> bool:
    return value is None


class CreateChatCompletion(Sampling):
    """The request. `messages`, `tools` and the like are judged where they are rendered."""

    messages: list[Any] = Field(min_length=1)
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None


class TopLogprob(BaseModel):
    token: str
    bytes: list[int] | None
    logprob: float


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: None = None


class Function(BaseModel):
    """A call's function: `arguments` is the JSON that the model wrote."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: Function


class Message(BaseModel):
    """`content` is null beside calls without text; calls are there only if some were made."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    annotations: list[dict[str, Any]] = []
    tool_calls: list[ToolCall] | None = Field(default=None, exclude_if=_absent)
    function_call: Function | None = Field(default=None, exclude_if=_absent)


class Choice(BaseModel):
    index: int
    message: Message
    logprobs: ChoiceLogprobs | None
    finish_reason: str


class PromptTokensDetails(BaseModel):
    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(BaseModel):
    """Tokens read and written; `n` choices read the prompt once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    service_tier: UsedTier
    system_fingerprint: str


class FunctionDelta(BaseModel):
    name: str | None = Field(default=None, exclude_if=_absent)
    arguments: str


class ToolCallDelta(BaseModel):
    """More of a call: id, type and name come with its first piece only."""

    index: int
    id: str | None = Field(default=None, exclude_if=_absent)
    type: Literal["function"] | None = Field(default=None, exclude_if=_absent)
    function: FunctionDelta


class Delta(BaseModel):
    """What a chunk adds: the role comes first, then pieces of text or of calls, then nothing."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=_absent)
    content: str | None = Field(default=None, exclude_if=_absent)
    tool_calls: list[ToolCallDelta] | None = Field(default=None, exclude_if=_absent)
    function_call: FunctionDelta | None = Field(default=None, exclude_if=_absent)


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(BaseModel):
    """A piece of a streamed answer. `usage` is there (null but for the last) only if asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    service_tier: UsedTier
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
