"""Legacy completions as the public API shows them: a text goes on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tunesmith.wire.chat import Usage
from tunesmith.wire.sampling import Sampling

MAX_BEST_OF = 20
MAX_LOGPROBS = 5
Prompt = str | list[str] | list[int] | list[list[int]]


class CreateCompletion(Sampling):
    prompt: Prompt | None = None
    suffix: str | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_BEST_OF)] | None = None


class LegacyLogprobs(BaseModel):
    """One entry a token in each list; the first token of a prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: LegacyLogprobs | None = None
    finish_reason: str | None


class Completion(BaseModel):
    """A whole answer, or a piece of a streamed one: then `usage` is there only if asked for."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None
    system_fingerprint: str
