"""From a chat request to token ids and sampling rules. Nothing is ignored in silence.

What the server cannot do yet is refused with the parameter's name, before anything is queued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.api.answer_text import AnswerText
from tunesmith.api.meter import Demand
from tunesmith.api.sampling import adapter_of, fingerprint, sampling, stops, used_tier
from tunesmith.api.schemas import answer_schema
from tunesmith.api.services import Services
from tunesmith.api.tool_request import ToolUse, tool_use
from tunesmith.data.answer_grammar import json_grammar
from tunesmith.data.messages import MessageError, normalise_messages
from tunesmith.errors import BadRequest
from tunesmith.serve.protocol import GenRequest
from tunesmith.wire.chat import CreateChatCompletion, Usage

LIGHT_BYTES = 8192
TEXT_ONLY = "This server answers with text only."

# (parameter, what is refused, why).
REFUSALS: tuple[tuple[str, Callable[[CreateChatCompletion], bool], str], ...] = (
    (
        "store",
        lambda body: bool(body.store),
        "Storing completions is not supported by this server yet.",
    ),
    ("modalities", lambda body: bool(set(body.modalities or ()) - {"text"}), TEXT_ONLY),
    ("audio", lambda body: body.audio is not None, TEXT_ONLY),
    (
        "top_logprobs",
        lambda body: body.top_logprobs is not None and not body.logprobs,
        "'top_logprobs' needs 'logprobs' to be true.",
    ),
    (
        "max_tokens",
        lambda body: body.max_tokens is not None and body.max_completion_tokens is not None,
        "Give 'max_tokens' or 'max_completion_tokens', not both.",
    ),
)


@dataclass(frozen=True)
class Prepared:
    """A request that can be answered: what the engine gets, and how to read what it says."""

    model: str
    text: AnswerText
    tools: ToolUse | None
    fingerprint: str
    demand: Demand

    @property
    def usage(self) -> Usage:
        return self.text.usage


def prepare(svc: Services, project_id: str, body: CreateChatCompletion) -> Prepared:
    """Resolves, renders and checks a request. Reads the database and files: call it in a thread."""
    refuse_unsupported(body)
    base, tuned = svc.names.find(project_id, body.model)
    renderer, token_bytes = svc.renderers.get(base.fingerprint, base.path)
    answer = answer_schema(body.response_format)
    try:
        tools = tool_use(body, base, renderer.call_syntax)
        messages = normalise_messages(body.messages)
        prompt_ids = renderer.prompt(messages, tools.tools if tools else None)
    except MessageError as error:
        raise BadRequest(f"{error}.", param=error.path, code="invalid_value") from None
    lead = renderer.answer_lead
    grammar = tools.grammar(renderer.call_tokens, answer, lead) if tools else None
    if grammar is None and answer is not None:
        grammar = json_grammar(answer, lead)
    adapter = adapter_of(svc, tuned)
    request = GenRequest(
        base_path=base.path,
        adapter=adapter,
        prompt_ids=prompt_ids,
        max_new_tokens=num_new_tokens(body, len(prompt_ids), base.context_length),
        stop_ids=renderer.stop_ids,
        n=body.n or 1,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        grammar=grammar,
        # How fast an answer comes must not tell one project what another has asked.
        cache_salt=project_id,
        **sampling(body, renderer.vocab_size),
    )
    return Prepared(
        model=body.model,
        text=AnswerText(
            request,
            stops(body),
            renderer.tokenizer,
            token_bytes,
            shown_ids=frozenset(renderer.call_tokens.values()) if tools else frozenset(),
            grammar_param="tools" if answer is None else "response_format",
        ),
        tools=tools,
        fingerprint=fingerprint(svc, base, adapter),
        demand=Demand(
            kind="completions",
            model=body.model,
            base=svc.names.root(base),
            tuned=tuned is not None,
            num_prompt=len(prompt_ids),
            num_answer=request.n * request.max_new_tokens,
            num_asked=request.n * (body.max_completion_tokens or body.max_tokens or 0),
            service_tier=used_tier(body),
        ),
    )


def is_light(svc: Services, project_id: str, body: CreateChatCompletion, num_bytes: int) -> bool:
    """Whether `prepare` takes less time than its way to a thread and back: a short text, nothing
    to be made of schemas, and the base's renderer at hand."""
    if num_bytes > LIGHT_BYTES or body.tools or body.functions or body.response_format:
        return False
    base, _ = svc.names.find(project_id, body.model)
    return svc.renderers.has(base.fingerprint)


def refuse_unsupported(body: CreateChatCompletion) -> None:
    """400 for what this server cannot do, or what makes no sense, naming the parameter."""
    for param, applies, message in REFUSALS:
        if applies(body):
            raise BadRequest(message, param=param, code="unsupported_value")


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
