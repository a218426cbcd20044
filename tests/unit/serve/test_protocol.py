"""Whatever crosses the socket arrives as it was sent, or is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import AdapterError, BaseModelError, EngineError, EngineUnavailable
from tunesmith.serve.protocol import (
    AdapterRef,
    DeadlineExceeded,
    Delta,
    Done,
    Draining,
    GenRequest,
    InvalidRequest,
    Overloaded,
    TokenLogprob,
    decode_line,
    encode_line,
    error_from_wire,
    error_to_wire,
    news_line,
)

TOKENS = st.integers(0, 200_000)


@given(
    st.builds(
        GenRequest,
        base_path=st.just(Path("/models/base")),
        prompt_ids=st.lists(TOKENS, min_size=1),
        max_new_tokens=st.integers(1, 1000),
        stop_ids=st.frozensets(TOKENS),
        adapter=st.none() | st.just(AdapterRef("ab" * 32, Path("/adapters/ab"))),
        n=st.integers(1, 8),
        temperature=st.floats(0, 2),
        top_p=st.floats(0, 1),
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        top_logprobs=st.none() | st.integers(0, 20),
        logit_bias=st.dictionaries(TOKENS, st.floats(-100, 100)),
        cache_salt=st.text(),
        priority=st.integers(-5, 5),
        deadline_s=st.none() | st.floats(0.001, 1e6),
    )
)
def test_requests_survive_the_wire(request: GenRequest) -> None:
    assert GenRequest.from_wire(decode_line(encode_line(request.to_wire()))) == request


@pytest.mark.parametrize(
    "message",
    [
        Delta(0, [1, 2]),
        Delta(3, [], finish_reason="stop"),
        Delta(1, [7], [TokenLogprob(-0.25, [(7, -0.25), (8, -2.0)])], "length"),
    ],
)
def test_deltas_survive_the_wire(message: Delta) -> None:
    [[number, *wire]] = json.loads(news_line([message.to_json(5)]))
    assert (number, Delta.from_wire(wire)) == (5, message)


def test_done_survives_the_wire() -> None:
    done = Done(3, 4, 0.5, 0.75)
    assert Done.from_wire(decode_line(encode_line(done.to_wire()))) == done


@pytest.mark.parametrize(
    "kind",
    [
        Overloaded,
        DeadlineExceeded,
        Draining,
        InvalidRequest,
        BaseModelError,
        AdapterError,
        EngineError,
    ],
)
def test_errors_keep_their_kind(kind: type[EngineError]) -> None:
    error = error_from_wire(error_to_wire(kind("because")))
    assert type(error) is kind
    assert error.message == "because"


def test_overload_is_a_reason_to_come_back() -> None:
    assert issubclass(Overloaded, EngineUnavailable)
    assert issubclass(Draining, EngineUnavailable)


GOOD: dict[str, Any] = {
    "base_path": "/b",
    "prompt_ids": [1],
    "max_new_tokens": 1,
    "stop_ids": [],
    "logit_bias": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_ids": []},
        {"prompt_ids": "text"},
        {"max_new_tokens": 0},
        {"n": 0},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"top_p": 1.5},
        {"top_logprobs": 21},
        {"adapter": {"sha256": "x"}},
        {"logit_bias": {"word": 1}},
        {"logit_bias": None},
        {"logit_bias": {"5": float("nan")}},
        {"logit_bias": {"5": float("inf"), "6": float("-inf")}},
        {"max_new_tokens": 2.5},
        {"n": 2.5},
        {"top_k": 1.5},
        {"priority": "first"},
        {"seed": "x"},
        {"stop_ids": ["x"]},
        {"top_logprobs": True},
        {"unknown": 1},
    ],
)
def test_a_bad_request_is_refused(change: dict[str, Any]) -> None:
    assert GenRequest.from_wire(GOOD)
    with pytest.raises(InvalidRequest):
        GenRequest.from_wire({**GOOD, **change})


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff\n", b"null", b"[" * 100_000])
def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_line(line)


def test_the_api_side_needs_no_torch() -> None:
    code = "import sys, tunesmith.serve.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
