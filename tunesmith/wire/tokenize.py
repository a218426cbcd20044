"""Tokens and texts, in the shapes that servers of open models have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from tunesmith.wire.requests import RequestBody


class Tokenize(RequestBody):
    """Either a `prompt`, taken as it stands, or `messages`, rendered as for a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Any], Field(min_length=1)] | None = None
    tools: list[Any] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = None


class Tokenized(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Detokenize(RequestBody):
    model: str | None = None
    tokens: list[int]


class Detokenized(BaseModel):
    prompt: str
