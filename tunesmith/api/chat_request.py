"""From a chat request to token ids and sampling rules. Nothing is ignored in silence.

What the server cannot do yet is refused with the parameter's name, before anything is queued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from tunesmith.api.models import find
from tunesmith.api.services import Services
from tunesmith.bases import BaseInfo
from tunesmith.data.messages import MessageError, normalise_messages, normalise_tools
from tunesmith.errors import BadRequest
from tunesmith.serve.protocol import AdapterRef, GenRequest
from tunesmith.serve.text import TokenBytes
from tunesmith.store.repo.models import ModelRow
from tunesmith.wire.chat import CreateChatCompletion

MAX_STOPS = 4
CHOICES_OF_TOOL = (None, "none", "auto")
TEXT_ONLY = "This server answers with text only."
NO_FORCED_TOOL = "Only 'none' and 'auto' are supported by this server yet."

# (parameter, what is refused, why).
REFUSALS: tuple[tuple[str, Callable[[CreateChatCompletion], bool], str], ...] = (
    (
        "store",
        lambda body: bool(body.store),
        "Storing completions is not supported by this server yet.",
    ),
    (
        "response_format",
        lambda body: (body.response_format or {"type": "text"}).get("type") != "text",
        "Only the response format 'text' is supported by this server yet.",
    ),
    ("tool_choice", lambda body: body.tool_choice not in CHOICES_OF_TOOL, NO_FORCED_TOOL),
    ("function_call", lambda body: body.function_call not in CHOICES_OF_TOOL, NO_FORCED_TOOL),
    ("modalities", lambda body: bool(set(body.modalities or ()) - {"text"}), TEXT_ONLY),
    ("audio", lambda body: body.audio is not None, TEXT_ONLY),
    (
        "top_logprobs",
        lambda body: body.top_logprobs is not None and not body.logprobs,
        "'top_logprobs' needs 'logprobs' to be true.",
    ),
    (
        "stream_options",
        lambda body: body.stream_options is not None and not body.stream,
        "'stream_options' needs 'stream' to be true.",
    ),
    (
        "max_tokens",
        lambda body: body.max_tokens is not None and body.max_completion_tokens is not None,
        "Give 'max_tokens' or 'max_completion_tokens', not both.",
    ),
)


@dataclass(frozen=True)
class Prepared:
    """A request that can be answered: what the engine gets, and how to read its tokens."""

    model: str
    generate: GenRequest
    stop: list[str]
    tokenizer: Tokenizer
    token_bytes: TokenBytes
    fingerprint: str


def prepare(svc: Services, body: CreateChatCompletion) -> Prepared:
    """Resolves, renders and checks a request. Reads the database and files: call it in a thread."""
    refuse_unsupported(body)
    base, tuned = find(svc, body.model)
    renderer, token_bytes = svc.renderers.get(base.fingerprint, base.path)
    try:
        tools = tools_of(body, base)
        prompt_ids = renderer.prompt(normalise_messages(body.messages), tools)
    except MessageError as error:
        raise BadRequest(f"{error}.", param=error.path, code="invalid_value") from None
    adapter = adapter_of(svc, tuned)
    identity = base.fingerprint + (adapter.sha256 if adapter else "")
    return Prepared(
        model=body.model,
        generate=GenRequest(
            base_path=base.path,
            adapter=adapter,
            prompt_ids=prompt_ids,
            max_new_tokens=num_new_tokens(body, len(prompt_ids), base.context_length),
            stop_ids=renderer.stop_ids,
            n=body.n or 1,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=logit_bias(body, renderer.vocab_size),
        ),
        stop=stops(body),
        tokenizer=renderer.tokenizer,
        token_bytes=token_bytes,
        fingerprint="fp_" + hashlib.sha256(identity.encode()).hexdigest()[:10],
    )


def adapter_of(svc: Services, tuned: ModelRow | None) -> AdapterRef | None:
    sha256 = tuned.adapter_sha256 if tuned else None
    if sha256 is None:
        return None
    return AdapterRef(sha256, svc.settings.adapters_dir / sha256)


def refuse_unsupported(body: CreateChatCompletion) -> None:
    """400 for what this server cannot do, or what makes no sense, naming the parameter."""
    for param, applies, message in REFUSALS:
        if applies(body):
            raise BadRequest(message, param=param, code="unsupported_value")


def tools_of(body: CreateChatCompletion, base: BaseInfo) -> list[dict[str, Any]] | None:
    """The tools to show the model, in the current form whatever form they came in."""
    tools = normalise_tools(body.tools, body.functions)
    if tools is None or "none" in (body.tool_choice, body.function_call):
        return None
    if not base.has_tools:
        raise BadRequest(
            f"The chat template of `{base.name}` has no place for tools.",
            param="tools" if body.tools else "functions",
            code="unsupported_value",
        )
    return tools


def num_new_tokens(body: CreateChatCompletion, num_prompt: int, context_length: int) -> int:
    """How long the answer may get; 400 where prompt and answer do not fit the context."""
    asked = body.max_completion_tokens or body.max_tokens
    if num_prompt + (asked or 1) <= context_length:
        return asked or context_length - num_prompt
    limit = f"This model's maximum context length is {context_length} tokens. However, "
    if asked is None:
        message = (
            f"{limit}your messages resulted in {num_prompt} tokens. "
            "Please reduce the length of the messages."
        )
    else:
        message = (
            f"{limit}you requested {num_prompt + asked} tokens ({num_prompt} in the messages, "
            f"{asked} in the completion). Please reduce the length of the messages or completion."
        )
    raise BadRequest(message, param="messages", code="context_length_exceeded")


def stops(body: CreateChatCompletion) -> list[str]:
    stop = [body.stop] if isinstance(body.stop, str) else list(body.stop or ())
    if len(stop) > MAX_STOPS or not all(stop):
        raise BadRequest(
            f"Invalid value for 'stop': give up to {MAX_STOPS} strings, none of them empty.",
            param="stop",
            code="invalid_value",
        )
    return stop


def logit_bias(body: CreateChatCompletion, vocab_size: int) -> dict[int, float]:
    biases = {}
    for token, bias in (body.logit_bias or {}).items():
        # The length first: int() of a million digits is slow.
        if len(token) > 9 or not (token.isascii() and token.isdigit()) or int(token) >= vocab_size:
            raise BadRequest(
                f"Invalid key in 'logit_bias': {token[:20]} is no token id of this model "
                f"(0 to {vocab_size - 1}).",
                param="logit_bias",
                code="invalid_value",
            )
        biases[int(token)] = bias
    return biases
