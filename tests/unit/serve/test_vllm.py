"""Our requests held to vLLM's own published schema, and its answers read as they were recorded."""

from __future__ import annotations

import asyncio
import json
import lzma
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.vllm_exchanges import RECORDED
from tunesmith.errors import EngineError, TunesmithError
from tunesmith.serve.protocol import (
    Delta,
    GenRequest,
    InvalidGrammar,
    InvalidRequest,
    Overloaded,
    ScoreRequest,
)
from tunesmith.serve.vllm import wire
from tunesmith.serve.vllm.server import RANKS, Room, command, environment

SCHEMAS = json.loads((RECORDED.parent / "schemas.json").read_text())["schemas"]
BASE = Path("/bases/tiny")
PLAIN = GenRequest(BASE, [1, 2, 3], 10, frozenset({7, 2}))
REQUESTS = {
    "plain": PLAIN,
    "greedy": replace(PLAIN, temperature=0.0),
    "sampled": replace(PLAIN, temperature=1.7, top_p=0.4, top_k=9, min_p=0.1, seed=-1),
    "penalties": replace(PLAIN, presence_penalty=2.0, frequency_penalty=-2.0),
    "bias": replace(PLAIN, logit_bias={5: 100.0}),
    "logprobs": replace(PLAIN, top_logprobs=20),
    "a grammar": replace(PLAIN, grammar='start: "a"'),
    "a tenant": replace(PLAIN, cache_salt="project", priority=-3),
}


def holds(body: Any, name: str) -> None:
    """That the body fits, and that vLLM knows each of its words: others it ignores in silence."""
    refs = json.loads(json.dumps(SCHEMAS).replace("#/components/schemas/", "#/$defs/"))
    schema = {**refs[name], "$defs": refs}
    assert set(body) <= set(schema["properties"])
    Draft202012Validator(schema).validate(body)


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_fits_the_published_schema(case: str) -> None:
    body = wire.completion(REQUESTS[case], 0, "tiny", 100)
    holds(body, "CompletionRequest")
    assert set(body.get("structured_outputs", {})) <= set(
        SCHEMAS["StructuredOutputsParams"]["properties"]
    )


def test_other_bodies_fit_the_published_schema() -> None:
    holds(wire.score(ScoreRequest(BASE, [1], [2]), "tiny"), "CompletionRequest")
    holds({"lora_name": "a-0", "lora_path": "/a"}, "LoadLoRAAdapterRequest")
    holds({"lora_name": "a-0"}, "UnloadLoRAAdapterRequest")


def test_every_recorded_request_fits_the_published_schema() -> None:
    kinds = {
        "/v1/completions": "CompletionRequest",
        "/v1/load_lora_adapter": "LoadLoRAAdapterRequest",
        "/v1/unload_lora_adapter": "UnloadLoRAAdapterRequest",
    }
    num_checked = 0
    with lzma.open(RECORDED, "rt") as lines:
        for exchange in map(json.loads, lines):
            method, path, body = exchange["request"].split(" ", 2)
            if method == "POST" and exchange["status"] == 200:
                holds(json.loads(body), kinds[path])
                num_checked += 1
    assert num_checked > 100


def test_every_choice_has_a_seed_of_its_own_and_never_the_one_for_none() -> None:
    seeds = {wire.choice_seed(seed, index) for seed in (-1, 0, 2**63) for index in range(50)}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_answer_ends_where_the_context_does() -> None:
    assert wire.completion(PLAIN, 0, "tiny", 8)["max_tokens"] == 5
    with pytest.raises(InvalidRequest, match="context is 3"):
        wire.completion(PLAIN, 0, "tiny", 3)


def chunk(ids: list[int], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    choice = {"index": 0, "token_ids": ids, "finish_reason": reason, "logprobs": logprobs}
    return {"choices": [choice]}


def test_a_stop_token_is_not_told() -> None:
    assert wire.delta_of(chunk([5, 7], "stop"), 3, None) == Delta(3, [5], None, "stop")
    assert wire.delta_of(chunk([5, 7], "length"), 0, None) == Delta(0, [5, 7], None, "length")
    assert wire.delta_of({"choices": [], "usage": {}}, 0, None) is None
    with pytest.raises(EngineError, match="abort"):
        wire.delta_of(chunk([], "abort"), 0, None)


def test_log_probabilities_are_of_ids_the_best_first() -> None:
    top = {"token_id:9": -3.0, "token_id:4": -0.5, "token_id:5": -1.0}
    told = chunk([9], None, {"token_logprobs": [-3.0], "top_logprobs": [top]})
    delta = wire.delta_of(told, 0, 2)
    assert delta is not None and delta.logprobs is not None
    assert delta.logprobs[0].logprob == -3.0
    assert delta.logprobs[0].top == [(4, -0.5), (5, -1.0)]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Grammar error: 1(9)", InvalidGrammar),
        (400, "top_p must be in (0, 1]", InvalidRequest),
        (401, "Unauthorized", EngineError),
        (404, "The model `a-0` does not exist.", wire.NotLoaded),
        (503, "busy", Overloaded),
        (500, "EngineCore encountered an issue.", wire.Gone),
        (500, "Internal server error", EngineError),
    ],
)
def test_errors(status: int, message: str, kind: type[TunesmithError]) -> None:
    body = json.dumps({"error": {"message": message, "code": status}}).encode()
    error = wire.error_of(status, body)
    assert type(error) is kind
    assert message in error.message


def read(stream: bytes, size: int) -> list[Any]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(stream), size):
            yield stream[start : start + size]

    async def collect() -> list[Any]:
        return [each async for each in wire.events(pieces())]

    return asyncio.run(collect())


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_read_however_it_is_cut(size: int) -> None:
    stream = 'data: {"a": "\u2028x"}\n\ndata: {"b": 1}\n\ndata: [DONE]\n\n'.encode()
    assert read(stream, size) == [{"a": "\u2028x"}, {"b": 1}]


def test_a_stream_that_breaks_off_or_tells_of_an_error_is_an_error() -> None:
    with pytest.raises(EngineError, match="broke off"):
        read(b'data: {"a": 1}\n\n', 100)
    with pytest.raises(EngineError, match="died"):
        read(b'data: {"error": {"message": "died", "code": 500}}\n\ndata: [DONE]\n\n', 100)


def test_a_server_is_started_for_what_is_registered() -> None:
    assert Room.of([]) == Room(8, 4)
    assert Room.of([8, 48]) == Room(64, 4)
    assert Room.of([4] * 1000) == Room(8, 16)
    assert Room.of([4096]).rank == max(RANKS)
    line = command(Path("/v/python"), BASE, Path("/run/vllm.sock"), Room(64, 4), "-tp 2")
    assert line[-2:] == ["-tp", "2"]
    assert line[line.index("--max-lora-rank") + 1] == "64"
    given = {"PATH": "/bin", "PYTHONPATH": "/ours", "TUNESMITH_API_KEY": "secret"}
    assert set(environment(given)) & set(given) == {"PATH"}
