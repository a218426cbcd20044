"""What chats and completions have in common: a model, and how its tokens are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tunesmith import __version__
from tunesmith.api.services import Services
from tunesmith.bases import BaseInfo
from tunesmith.errors import BadRequest
from tunesmith.serve.protocol import AdapterRef
from tunesmith.store.repo.models import ModelRow
from tunesmith.wire.sampling import Sampling, UsedTier

MAX_STOPS = 4
# Of those that wait the lower begins first.
PRIORITIES: dict[UsedTier, int] = {"priority": -1, "default": 0, "flex": 1}

BY_SCHEMA = " Use 'response_format' in chats."
ONLY_HERE = " It belongs to the other of chats and completions."
# What other servers of open models take and this one does not do: the value that asks for nothing,
# and what to use instead. In silence the answer would be another than the one asked for.
FOREIGN: dict[str, tuple[Any, str]] = {
    "repetition_penalty": (1, " Use 'frequency_penalty' or 'presence_penalty'."),
    "length_penalty": (1, ""),
    "no_repeat_ngram_size": (0, ""),
    "typical_p": (1, ""),
    "use_beam_search": (False, ""),
    "min_tokens": (0, ""),
    "ignore_eos": (False, ""),
    "stop_token_ids": ([], " Use 'stop'."),
    "include_stop_str_in_output": (False, ""),
    "bad_words": ([], " Use 'logit_bias'."),
    "allowed_token_ids": ([], " Use 'logit_bias'."),
    "prompt_logprobs": (None, " Use 'echo' with 'logprobs' in completions."),
    "truncate_prompt_tokens": (None, ""),
    "guided_json": (None, BY_SCHEMA),
    "guided_regex": (None, BY_SCHEMA),
    "guided_choice": (None, BY_SCHEMA),
    "guided_grammar": (None, BY_SCHEMA),
    "structured_outputs": (None, BY_SCHEMA),
    "add_generation_prompt": (True, ""),
    "continue_final_message": (False, " Use completions."),
    "chat_template": (None, ""),
    "chat_template_kwargs": ({}, ""),
    "web_search_options": (None, ""),
}
FOREIGN_TO_CHATS = FOREIGN | {
    "echo": (False, ONLY_HERE),
    "best_of": (1, ONLY_HERE),
    "suffix": ("", ONLY_HERE),
    "prompt": (None, ONLY_HERE),
}
FOREIGN_TO_COMPLETIONS = FOREIGN | {
    "response_format": ({"type": "text"}, ONLY_HERE),
    "top_logprobs": (0, ONLY_HERE),
    "max_completion_tokens": (None, ONLY_HERE),
    "messages": (None, ONLY_HERE),
    "tools": ([], ONLY_HERE),
}


def refuse_foreign(body: Mapping[str, Any], foreign: Mapping[str, tuple[Any, str]]) -> None:
    """400 for a field that would change the answer elsewhere and does not here."""
    for name, (neutral, instead) in foreign.items():
        if body.get(name) not in (None, neutral):
            raise BadRequest(
                f"This server does not do '{name}'.{instead}", param=name, code="unsupported_value"
            )


def sampling(body: Sampling, vocab_size: int) -> dict[str, Any]:
    """The fields of a GenRequest that say how to choose. 400 for what makes no sense."""
    if body.stream_options is not None and not body.stream:
        raise BadRequest(
            "'stream_options' needs 'stream' to be true.",
            param="stream_options",
            code="unsupported_value",
        )
    return {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "top_k": max(body.top_k or 0, 0),
        "min_p": body.min_p or 0.0,
        "seed": body.seed,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "logit_bias": logit_bias(body, vocab_size),
        "priority": PRIORITIES[used_tier(body)],
    }


def used_tier(body: Sampling) -> UsedTier:
    """How the request is served: there is nothing that "auto" or "scale" would choose."""
    tier = body.service_tier
    return tier if tier == "flex" or tier == "priority" else "default"


def stops(body: Sampling) -> list[str]:
    stop = [body.stop] if isinstance(body.stop, str) else list(body.stop or ())
    if len(stop) > MAX_STOPS or not all(stop):
        raise BadRequest(
            f"Invalid value for 'stop': give up to {MAX_STOPS} strings, none of them empty.",
            param="stop",
            code="invalid_value",
        )
    return stop


def logit_bias(body: Sampling, vocab_size: int) -> dict[int, float]:
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


def adapter_of(svc: Services, tuned: ModelRow | None) -> AdapterRef | None:
    sha256 = tuned.adapter_sha256 if tuned else None
    if sha256 is None:
        return None
    return AdapterRef(sha256, svc.settings.adapters_dir / sha256)


def fingerprint(svc: Services, base: BaseInfo, adapter: AdapterRef | None) -> str:
    """Names the weights that answer and what computes them: where it is another, the same seed may
    give another answer."""
    settings = svc.settings
    engine = (__version__, settings.engine, settings.device, settings.engine_int8)
    identity = (base.fingerprint, adapter.sha256 if adapter else None, *engine)
    return "fp_" + hashlib.sha256(repr(identity).encode()).hexdigest()[:10]
