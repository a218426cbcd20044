"""Chunks of text are put together from what stays the same: what they say must be what was said."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.api.chat_answer import Answer
from tunesmith.ids import SystemRng
from tunesmith.wire.chat import ChunkChoice, Delta


def answer(include_usage: bool) -> Answer:
    request = SimpleNamespace(n=2, top_logprobs=None)
    text: Any = SimpleNamespace(request=request)
    demand = SimpleNamespace(service_tier="default")
    prepared: Any = SimpleNamespace(
        text=text, tools=None, model='ft:"nano"', fingerprint="fp_1", demand=demand
    )
    return Answer("chatcmpl-1", 1, prepared, SystemRng(), include_usage)


@given(text=st.text(st.characters(codec="utf-8"), min_size=1), index=st.integers(0, 1))
def test_a_text_chunk_is_the_chunk_that_would_be_written_whole(text: str, index: int) -> None:
    for include_usage in (False, True):
        made = answer(include_usage)
        for each in ("first", text):
            whole = made._chunk(ChunkChoice(index=index, delta=Delta(content=each)))
            assert json.loads(made._text_chunk(index, each)) == json.loads(whole)
