"""From a legacy completion request to one engine request for each of its prompts."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.answer_text import AnswerText
from tunesmith.api.meter import Demand
from tunesmith.api.prompts import Prompt, prompts_of
from tunesmith.api.sampling import adapter_of, fingerprint, sampling, stops, used_tier
from tunesmith.api.services import Services
from tunesmith.api.text_stream import TokenBytes
from tunesmith.errors import BadRequest
from tunesmith.serve.protocol import GenRequest, ScoreRequest
from tunesmith.wire.chat import PromptTokensDetails, Usage
from tunesmith.wire.completions import CreateCompletion

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 2048
# Choices of one request that exist at the same time in the answer.
MAX_TOTAL_CHOICES = 4096


@dataclass(frozen=True)
class PromptRun:
    """What is to be done for one prompt: a text to generate, scores of the prompt, or both."""

    prompt: Prompt
    text: AnswerText | None
    """None where nothing is to be generated."""
    score: ScoreRequest | None
    """None where the prompt's own probabilities are not asked for."""


@dataclass(frozen=True)
class PreparedCompletion:
    model: str
    runs: list[PromptRun]
    num_choices: int
    """Shown for each prompt."""
    num_drawn: int
    """Generated for each prompt; the best are shown."""
    echo: bool
    num_logprobs: int | None
    token_bytes: TokenBytes
    fingerprint: str
    demand: Demand

    @property
    def usage(self) -> Usage:
        """So far; all choices of a prompt read it once."""
        texts = [run.text for run in self.runs if run.text is not None]
        num_prompt = sum(len(run.prompt.ids) for run in self.runs)
        num_completion = sum(text.num_completion_tokens for text in texts)
        num_cached = sum(text.num_cached_tokens for text in texts)
        return Usage(
            prompt_tokens=num_prompt,
            completion_tokens=num_completion,
            total_tokens=num_prompt + num_completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=num_cached),
        )


def prepare(svc: Services, project_id: str, body: CreateCompletion) -> PreparedCompletion:
    """Resolves and checks a request. Reads the database and files: call it in a thread."""
    num_choices = body.n or 1
    num_drawn = body.best_of or num_choices
    check(body, num_choices, num_drawn)
    base, tuned = svc.names.find(project_id, body.model)
    renderer, token_bytes = svc.renderers.get(base.fingerprint, base.path)
    given = "" if body.prompt is None else body.prompt
    prompts = prompts_of(given, renderer, param="prompt", most=MAX_PROMPTS)
    if len(prompts) * num_drawn > MAX_TOTAL_CHOICES:
        raise BadRequest(
            f"{len(prompts)} prompts with {num_drawn} choices each are more than the "
            f"{MAX_TOTAL_CHOICES} choices that one request may have.",
            param="prompt",
            code="invalid_value",
        )
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    adapter = adapter_of(svc, tuned)
    chosen = sampling(body, renderer.vocab_size)
    stop = stops(body)
    scored = bool(body.echo) and body.logprobs is not None
    # The best choice is the likeliest, so choosing needs the log probabilities, too.
    num_top = 0 if body.logprobs is None and num_drawn > num_choices else body.logprobs

    def run(prompt: Prompt) -> PromptRun:
        check_length(len(prompt.ids), max_tokens, base.context_length)
        text = None
        if max_tokens:
            request = GenRequest(
                base_path=base.path,
                adapter=adapter,
                prompt_ids=prompt.ids,
                max_new_tokens=max_tokens,
                stop_ids=renderer.stop_ids,
                n=num_drawn,
                top_logprobs=num_top,
                cache_salt=project_id,
                **chosen,
            )
            text = AnswerText(request, stop, renderer.tokenizer, token_bytes)
        score = None
        if scored and len(prompt.ids) > 1:
            ids = prompt.ids
            score = ScoreRequest(base.path, ids[:1], ids[1:], adapter, body.logprobs or 0)
        return PromptRun(prompt, text, score)

    return PreparedCompletion(
        model=body.model,
        runs=[run(prompt) for prompt in prompts],
        num_choices=num_choices,
        num_drawn=num_drawn,
        echo=bool(body.echo),
        num_logprobs=body.logprobs,
        token_bytes=token_bytes,
        fingerprint=fingerprint(svc, base, adapter),
        demand=Demand(
            kind="completions",
            model=body.model,
            base=svc.names.root(base),
            tuned=tuned is not None,
            num_prompt=sum(len(prompt.ids) for prompt in prompts),
            num_answer=len(prompts) * num_drawn * max_tokens,
            num_asked=len(prompts) * num_drawn * max_tokens,
            service_tier=used_tier(body),
        ),
    )


def check(body: CreateCompletion, num_choices: int, num_drawn: int) -> None:
    """400 for what this server cannot do, or what makes no sense, naming the parameter."""
    for param, wrong, message in (
        ("suffix", bool(body.suffix), "Filling in before a suffix is not supported here."),
        ("best_of", num_drawn < num_choices, "'best_of' must not be smaller than 'n'."),
        (
            "best_of",
            bool(body.stream) and num_drawn > num_choices,
            "'best_of' cannot be streamed: the best choice is known at the end only.",
        ),
    ):
        if wrong:
            raise BadRequest(message, param=param, code="unsupported_value")


def check_length(num_prompt: int, max_tokens: int, context_length: int) -> None:
    if num_prompt + max_tokens <= context_length:
        return
    raise BadRequest(
        f"This model's maximum context length is {context_length} tokens, however you requested "
        f"{num_prompt + max_tokens} tokens ({num_prompt} in your prompt; {max_tokens} for the "
        "completion). Please reduce your prompt; or completion length.",
        param="prompt",
        code="context_length_exceeded",
    )
