"""Our requests in the words of vLLM's HTTP API, and its answers in ours.

One request is one choice, so that a choice can be stopped alone by hanging up. Every option is
spelled out, or a server's own defaults (its `generation_config.json`) would be used in silence.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from hashlib import blake2b
from typing import Any

from tunesmith.errors import EngineError, EngineUnavailable, TunesmithError
from tunesmith.serve.protocol import (
    MIN_LOGPROB,
    Delta,
    GenRequest,
    InvalidGrammar,
    InvalidRequest,
    Overloaded,
    ScoreRequest,
    TokenLogprob,
)

# How vLLM spells an id where it would put a token's text ("return_tokens_as_token_ids").
TOKEN_PREFIX = "token_id:"
# A temperature below this is greedy here; vLLM would raise it to its own smallest.
COLDEST = 1e-4


# What it says to every request once the process that computes has died; it ends soon after.
DEAD = "EngineCore"


class NotLoaded(EngineError):
    """The server does not know the model's name: it has restarted, or was told to forget it."""


class Gone(EngineUnavailable):
    """The server has ended, or cannot be reached."""


def completion(request: GenRequest, index: int, model: str, max_positions: int) -> dict[str, Any]:
    """The body of POST /v1/completions for one choice. Raises InvalidRequest."""
    room = max_positions - len(request.prompt_ids)
    if room < 1:
        raise InvalidRequest(
            f"The prompt has {len(request.prompt_ids)} tokens; the model's context is "
            f"{max_positions}, and the answer needs some of it."
        )
    greedy = request.temperature < COLDEST or request.top_p == 0
    body: dict[str, Any] = {
        "model": model,
        "prompt": request.prompt_ids,
        "max_tokens": min(request.max_new_tokens, room),
        "temperature": 0.0 if greedy else request.temperature,
        "top_p": request.top_p or 1.0,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "repetition_penalty": 1.0,
        "stop_token_ids": sorted(request.stop_ids),
        # A grammar's end is the tokenizer's own end of text, whatever stops the answer otherwise.
        "ignore_eos": request.grammar is None,
        "return_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.seed is not None and not greedy:
        body["seed"] = choice_seed(request.seed, index)
    if request.top_logprobs is not None:
        body |= {"logprobs": request.top_logprobs, "return_tokens_as_token_ids": True}
    if request.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in request.logit_bias.items()}
    if request.grammar is not None:
        body["structured_outputs"] = {"grammar": request.grammar}
    if request.cache_salt:
        body["cache_salt"] = request.cache_salt
    if request.priority:
        body["priority"] = request.priority
    return body


def score(request: ScoreRequest, model: str) -> dict[str, Any]:
    """The body of POST /v1/completions that has the prompt itself scored."""
    return {
        "model": model,
        "prompt": request.inputs[0],
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": request.top_logprobs,
    }


def choice_seed(seed: int, index: int) -> int:
    """Another for each choice; 63 bits, for vLLM takes -1 for none."""
    key = (seed & (2**64 - 1)).to_bytes(8, "little") + index.to_bytes(8, "little")
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 1


def delta_of(chunk: Mapping[str, Any], index: int, num_top: int | None) -> Delta | None:
    """What a chunk of the stream says of the choice; None where it says nothing of it."""
    if not chunk["choices"]:
        return None
    [choice] = chunk["choices"]
    ids = list(choice.get("token_ids") or [])
    logprobs = None if num_top is None else logprobs_of(choice.get("logprobs"), num_top)
    reason = choice.get("finish_reason")
    if reason not in (None, "stop", "length"):
        raise EngineError(f"vLLM ended the answer: {reason}.")
    if reason == "stop":
        # No stop strings are sent, so what stopped it is a token, the last one; it is not told.
        ids, logprobs = ids[:-1], logprobs and logprobs[:-1]
    return Delta(index, ids, logprobs, reason)


def logprobs_of(wire: Mapping[str, Any] | None, num_top: int) -> list[TokenLogprob]:
    if not wire:
        return []
    entries = zip(wire["token_logprobs"], wire["top_logprobs"], strict=True)
    return [
        TokenLogprob(
            logprob,
            best(
                {int(name.removeprefix(TOKEN_PREFIX)): each for name, each in top.items()}, num_top
            ),
        )
        for logprob, top in entries
    ]


def scores_of(answer: Mapping[str, Any], request: ScoreRequest) -> list[Any]:
    """[logprob, [[id, logprob], ...]] of each of the completion's ids, as `TokenLogprob`."""
    found = answer["choices"][0]["prompt_logprobs"][len(request.prompt_ids) :]
    results = []
    for token, entry in zip(request.completion_ids, found, strict=True):
        values = {int(other): max(each["logprob"], MIN_LOGPROB) for other, each in entry.items()}
        results.append([values[token], [list(pair) for pair in best(values, request.top_logprobs)]])
    return results


def best(values: Mapping[int, float], number: int) -> list[tuple[int, float]]:
    """The likeliest; of equals first the one that was named first, which is the chosen one."""
    return sorted(values.items(), key=lambda item: -item[1])[:number]


def error_of(status: int, body: bytes) -> TunesmithError:
    """The error behind an answer other than 200, or behind an error within a stream."""
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    text = f"vLLM: {message}"
    if status in (401, 403):
        return EngineError(f"{text} (is TUNESMITH_VLLM_API_KEY the server's key?)")
    if status == 404:
        return NotLoaded(text)
    if status in (429, 503):
        return Overloaded(text)
    if status >= 500:
        return Gone(f"{text} Try again soon.") if DEAD in message else EngineError(text)
    return InvalidGrammar(message) if "grammar" in message.lower() else InvalidRequest(text)


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The objects of a server-sent event stream, until its end; raises what it says went wrong."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        for event in whole:
            data = event.removeprefix(b"data: ")
            if data == b"[DONE]":
                return
            chunk = json.loads(data)
            if "error" in chunk:
                raise error_of(int(chunk["error"].get("code") or 500), data)
            yield chunk
    raise Gone("vLLM's answer broke off. Try again soon.")
