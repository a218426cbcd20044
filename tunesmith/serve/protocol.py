"""What the API and the engine say to each other: JSON lines over a Unix socket.

Answers share a connection. The client sends {"verb": "generate", "id": number, ...} for each, may
send {"verb": "stop", "id", "index"} to end one choice and {"verb": "cancel", "id"} to end all of an
answer; closing the connection ends all answers on it. The engine sends a line for all that came at
once: a list of news, each of one answer. They are [id, index, token_ids], which logprobs and
finish_reason follow where there is one of them (`Delta`), and at last [id, {"done": ...}] or
[id, {"error": {"code", "message"}}]. An object in place of the list is for the whole connection:
{"error": ...} ends all its answers, after {"draining": true} new ones are refused.

Every other verb has a connection of its own and is answered there by one line, an object
("score" and "embed": {"result": ...}).

Token ids only: templates, text, stop strings and usage belong to the other side of the socket.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import (
    AdapterError,
    BaseModelError,
    EngineError,
    EngineUnavailable,
    TunesmithError,
)

# A prompt of a million ids fits; anything longer is not a request of ours.
MAX_LINE_BYTES = 16 << 20
MAX_TOP_LOGPROBS = 20
MAX_PENALTY = 2.0
MIN_LOGPROB = -9999.0

FinishReason = Literal["stop", "length"]


class InvalidRequest(EngineError):
    """A request that can never be answered; the caller has to change it."""


class InvalidGrammar(InvalidRequest):
    """The request's grammar cannot be followed."""


@dataclass(frozen=True)
class AdapterRef:
    """An adapter by content: `sha256` is its identity, `path` only says where to find it."""

    sha256: str
    path: Path

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any] | None) -> AdapterRef | None:
        return cls(str(wire["sha256"]), Path(wire["path"])) if wire else None


@dataclass(frozen=True)
class GenRequest:
    """One prompt and how to go on from it.

    `temperature` 0 is greedy. `top_logprobs` None means no log probabilities, 0 those of the
    chosen tokens only. Penalties count generated tokens (OpenAI's rule). The same `seed` gives
    the same tokens whatever else the engine is doing; None draws a fresh one. `grammar` is a Lark
    grammar in llguidance's form: only answers in its language are generated, and a stop token only
    where one is complete.
    """

    base_path: Path
    prompt_ids: list[int]
    max_new_tokens: int
    stop_ids: frozenset[int]
    adapter: AdapterRef | None = None
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    """Tokens below this share of the likeliest one's probability are left out."""
    seed: int | None = None
    top_logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    grammar: str | None = None
    cache_salt: str = ""
    """Requests share what was computed of their prompts only with those of the same salt."""
    priority: int = 0
    """Lower begins sooner; of equal ones the first that came."""
    deadline_s: float | None = None
    """Seconds from arrival after which the answer ends with `DeadlineExceeded`."""

    def __post_init__(self) -> None:
        whole = [self.max_new_tokens, self.n, self.top_k, self.priority, *self.stop_ids]
        whole += [self.seed or 0, self.top_logprobs or 0]
        for wrong, rule in (
            (not self.prompt_ids, "prompt_ids must not be empty"),
            (self.max_new_tokens < 1, "max_new_tokens must be at least 1"),
            (self.n < 1, "n must be at least 1"),
            (self.deadline_s is not None and not self.deadline_s > 0, "deadline_s must be above 0"),
            (set(map(type, whole)) != {int}, "ids, counts and seed must be whole numbers"),
            (not self.temperature >= 0, "temperature must not be negative"),
            (not isfinite(sum(self.logit_bias.values())), "logit_bias must be finite"),
            (not 0 <= self.top_p <= 1, "top_p must be between 0 and 1"),
            (not 0 <= self.min_p <= 1, "min_p must be between 0 and 1"),
            (self.top_k < 0, "top_k must not be negative"),
            (
                max(abs(self.presence_penalty), abs(self.frequency_penalty)) > MAX_PENALTY,
                f"penalties must be between -{MAX_PENALTY:g} and {MAX_PENALTY:g}",
            ),
            (
                self.top_logprobs is not None and not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS,
                f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}",
            ),
        ):
            if wrong:
                raise InvalidRequest(f"The request is not valid: {rule}.")

    def to_wire(self) -> dict[str, Any]:
        wire = {item.name: getattr(self, item.name) for item in fields(self)}
        wire["stop_ids"] = sorted(self.stop_ids)
        return _paths_as_text(wire)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> GenRequest:
        try:
            return cls(
                **{
                    **wire,
                    "base_path": Path(wire["base_path"]),
                    "prompt_ids": [int(token) for token in wire["prompt_ids"]],
                    "stop_ids": frozenset(wire["stop_ids"]),
                    "adapter": AdapterRef.from_wire(wire.get("adapter")),
                    # JSON has no integer keys.
                    "logit_bias": {
                        int(token): float(bias) for token, bias in wire["logit_bias"].items()
                    },
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"The request is not valid: {error!r}.") from error


@dataclass(frozen=True)
class ScoreRequest:
    """How likely a model finds `completion_ids` after `prompt_ids`: a TokenLogprob for each."""

    base_path: Path
    prompt_ids: list[int]
    completion_ids: list[int]
    adapter: AdapterRef | None = None
    top_logprobs: int = 0

    @property
    def inputs(self) -> list[list[int]]:
        return [[*self.prompt_ids, *self.completion_ids]]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.completion_ids:
            raise InvalidRequest("The request is not valid: prompt and completion need ids.")
        if not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise InvalidRequest("The request is not valid: top_logprobs is out of range.")


@dataclass(frozen=True)
class EmbedRequest:
    """A vector of length 1 for each input: the mean of its hidden states, or the last of them."""

    base_path: Path
    inputs: list[list[int]]
    adapter: AdapterRef | None = None
    pooling: Literal["mean", "last"] = "mean"

    def __post_init__(self) -> None:
        if not all(self.inputs) or self.pooling not in ("mean", "last"):
            raise InvalidRequest("The request is not valid: inputs need ids, pooling a name.")


PassRequest = ScoreRequest | EmbedRequest
PASSES: dict[str, type[PassRequest]] = {"score": ScoreRequest, "embed": EmbedRequest}


def pass_to_wire(request: PassRequest) -> dict[str, Any]:
    verb = next(verb for verb, kind in PASSES.items() if isinstance(request, kind))
    wire = {item.name: getattr(request, item.name) for item in fields(request)}
    return {"verb": verb, **_paths_as_text(wire)}


def pass_from_wire(verb: str, wire: Mapping[str, Any]) -> PassRequest:
    try:
        known = {
            "base_path": Path(wire["base_path"]),
            "adapter": AdapterRef.from_wire(wire.get("adapter")),
        }
        request = PASSES[verb](**{**wire, **known})
        if not all(type(token) is int for ids in request.inputs for token in ids):
            raise TypeError("ids must be whole numbers")
        return request
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"The request is not valid: {error!r}.") from error


def _paths_as_text(wire: dict[str, Any]) -> dict[str, Any]:
    adapter = wire["adapter"]
    if adapter is not None:
        adapter = {"sha256": adapter.sha256, "path": str(adapter.path)}
    return {**wire, "base_path": str(wire["base_path"]), "adapter": adapter}


@dataclass(frozen=True)
class TokenLogprob:
    """Natural-log probability of a generated token at temperature 1, before bias and penalties.

    `top` lists the likeliest tokens at that place as (id, logprob), best first.
    """

    logprob: float
    top: list[tuple[int, float]]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> TokenLogprob:
        logprob, top = wire
        return cls(logprob, [(token, value) for token, value in top])


@dataclass(slots=True)  # not frozen, which would take three times as long for every token
class Delta:
    """News of choice `index`: its next tokens, and in its last delta why it ended.

    A stop token ends the choice and is not among `token_ids`, so the number of ids sent is the
    number of completion tokens to report. `logprobs` has one entry per id where they were asked.
    """

    index: int
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None

    def to_json(self, number: int) -> str:
        """As news of the answer of that number."""
        if self.logprobs is None and self.finish_reason is None:
            return f"[{number},{self.index},{self.token_ids}]"  # integers: JSON as they are
        entries = self.logprobs
        logprobs = None if entries is None else [[entry.logprob, entry.top] for entry in entries]
        return _to_json([number, self.index, self.token_ids, logprobs, self.finish_reason])

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Delta:
        if len(wire) == 2:
            return cls(*wire)
        index, token_ids, entries, reason = wire
        logprobs = None if entries is None else [TokenLogprob.from_wire(each) for each in entries]
        return cls(index, token_ids, logprobs, reason)

    def extend(self, later: Delta) -> None:
        """Becomes both, as if they had come together."""
        self.token_ids += later.token_ids
        if later.logprobs is not None:
            self.logprobs = (self.logprobs or []) + later.logprobs
        self.finish_reason = later.finish_reason


@dataclass(frozen=True)
class Done:
    """The closing line of an answer: what it took."""

    prompt_tokens: int
    completion_tokens: int
    queue_s: float
    """From arrival to the first computed token of the prompt; includes loading."""
    first_token_s: float
    """From arrival to the first generated token."""
    cached_tokens: int = 0
    """Those of the prompt that did not have to be computed."""

    def to_wire(self) -> dict[str, Any]:
        return {"done": {item.name: getattr(self, item.name) for item in fields(self)}}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Done:
        return cls(**wire["done"])


@dataclass
class Counters:
    """What an engine has done since it started."""

    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_completion_tokens: int = 0
    num_passes: int = 0
    num_preempted: int = 0


@dataclass(frozen=True)
class Stats:
    """How an engine is: the answer to "stats". What is not its own affair is 0."""

    state: Literal["starting", "ready", "draining"]
    num_running: int
    num_waiting: int
    bases: list[dict[str, Any]]
    counters: Counters
    message: str | None = None
    """What stands in the way of being ready."""
    cache_bytes: int = 0
    """Of running answers."""
    kept_bytes: int = 0
    """Of beginnings of texts."""
    model_bytes: int = 0
    budget_bytes: int = 0

    def to_wire(self) -> dict[str, Any]:
        wire = asdict(self)
        wire |= wire.pop("counters")
        return wire


class Overloaded(EngineUnavailable):
    """The queue is full; worth trying again soon."""


class DeadlineExceeded(EngineUnavailable):
    """The request's time was up before its answer ended."""

    @classmethod
    def of(cls, request: GenRequest, num_generated: int) -> DeadlineExceeded:
        began = "ended" if num_generated else "begun"
        return cls(
            f"The answer had not {began} after {request.deadline_s:g} seconds, the request's "
            "deadline. Try again later, or allow it more time."
        )


class Draining(EngineUnavailable):
    """The engine is shutting down and takes nothing new."""


# The kinds of error that cross the socket; anything else arrives as a plain EngineError.
ERRORS: dict[str, type[TunesmithError]] = {
    "overloaded": Overloaded,
    "draining": Draining,
    "deadline": DeadlineExceeded,
    "grammar": InvalidGrammar,
    "invalid": InvalidRequest,
    "base": BaseModelError,
    "adapter": AdapterError,
    "unavailable": EngineUnavailable,
    "engine": EngineError,
}


def error_to_wire(error: TunesmithError) -> dict[str, Any]:
    code = next((code for code, kind in ERRORS.items() if isinstance(error, kind)), "engine")
    return {"error": {"code": code, "message": error.message}}


def error_from_wire(wire: Mapping[str, Any]) -> TunesmithError:
    """The error to raise on the client's side."""
    body = wire["error"]
    return ERRORS.get(body["code"], EngineError)(body["message"])


_to_json = json.JSONEncoder(separators=(",", ":")).encode


def encode_line(wire: Mapping[str, Any]) -> bytes:
    return _to_json(wire).encode() + b"\n"


def end_to_json(number: int, end: Done | TunesmithError) -> str:
    """The last news of the answer of that number."""
    return _to_json([number, end.to_wire() if isinstance(end, Done) else error_to_wire(end)])


def news_line(news: Iterable[str]) -> bytes:
    return f"[{','.join(news)}]\n".encode()


def decode_line(line: bytes) -> dict[str, Any]:
    """One line as an object; raises InvalidRequest for anything else."""
    try:
        wire = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The line is not JSON: {error}.") from error
    if not isinstance(wire, dict):
        raise InvalidRequest("The line is not a JSON object.")
    return wire
