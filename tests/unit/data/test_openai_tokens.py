"""Counts equal to tiktoken's own, offline."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public as published
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.model import encoding_name_for_model

from tunesmith.data import openai_tokens
from tunesmith.data.openai_tokens import (
    ENCODINGS,
    encoding_of,
    load_encoding,
    num_answer_tokens,
    num_conversation_tokens,
    num_text_tokens,
)

ASSETS = Path(openai_tokens.__file__).parents[1] / "assets"
ROWS = [json.loads(line) for line in (ASSETS / "demo/snips_heldout.jsonl").open(encoding="utf-8")]
# sha1 of the address, as tiktoken names the files of its cache.
CACHE_NAMES = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tiktoken.Encoding]:
    """tiktoken's encodings by its own code, from a cache filled with our files."""
    cache = tmp_path_factory.mktemp("tiktoken")
    for name, cached in CACHE_NAMES.items():
        packed = (ASSETS / f"openai/{name}.tiktoken.xz").read_bytes()
        (cache / cached).write_bytes(lzma.decompress(packed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        return {name: tiktoken.Encoding(**getattr(published, name)()) for name in ENCODINGS}


@pytest.mark.parametrize("name", ENCODINGS)
def test_patterns_and_special_tokens_are_the_published_ones(
    theirs: dict[str, tiktoken.Encoding], name: str
) -> None:
    ours = load_encoding(name)
    assert ours._pat_str == theirs[name]._pat_str
    assert ours._special_tokens == theirs[name]._special_tokens
    assert ours.n_vocab == theirs[name].n_vocab


@pytest.mark.parametrize("name", ENCODINGS)
@given(text=st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_text_has_the_same_tokens(
    theirs: dict[str, tiktoken.Encoding], name: str, text: str
) -> None:
    assert load_encoding(name).encode_ordinary(text) == theirs[name].encode_ordinary(text)


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_notebook_s_rule_on_real_rows(theirs: dict[str, tiktoken.Encoding], name: str) -> None:
    def notebook(messages: list[dict[str, Any]]) -> int:
        num = 0
        for message in messages:
            num += 3
            for key, value in message.items():
                num += len(theirs[name].encode(value))
                num += key == "name"
        return num + 3

    ours = load_encoding(name)
    for row in ROWS:
        assert num_conversation_tokens(ours, row["messages"]) == notebook(row["messages"])
    named = [{"role": "user", "name": "ada", "content": "Hello"}]
    assert num_conversation_tokens(ours, named) == notebook(named)
    answers = sum(len(theirs[name].encode(row["messages"][-1]["content"])) for row in ROWS)
    assert sum(num_answer_tokens(ours, row["messages"]) for row in ROWS) == answers


def test_what_the_notebook_cannot_count_counts_as_its_json() -> None:
    encoding = load_encoding("cl100k_base")
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
    texts = num_text_tokens(encoding, "assistant") + num_text_tokens(encoding, '[{"id": "a"}]')
    assert num_conversation_tokens(encoding, [call]) == 3 + 3 + texts


def test_spelled_control_tokens_are_text_and_lone_surrogates_do_not_raise() -> None:
    encoding = load_encoding("o200k_base")
    assert num_text_tokens(encoding, "<|endoftext|>") > 1
    assert num_text_tokens(encoding, "\ud800") >= 1


@pytest.mark.parametrize("blank", [" ", "\t", "\u3000"])
def test_a_million_blanks_end_nothing(blank: str) -> None:
    encoding = load_encoding("o200k_base")
    assert 0 < num_text_tokens(encoding, f"a{blank * 1_000_000}b") < 1_000_003
    few = f"a{blank * 50_000}b"
    assert num_text_tokens(encoding, few) == len(encoding.encode_ordinary(few))


def test_a_long_run_of_one_letter_stays_quick() -> None:
    assert num_text_tokens(load_encoding("cl100k_base"), "a" * 300_000) > 1000


@pytest.mark.parametrize(
    "model",
    "gpt-3.5-turbo gpt-3.5-turbo-0125 gpt-4 gpt-4-0613 gpt-4o gpt-4o-mini gpt-4o-mini-2024-07-18 "
    "gpt-4.1 gpt-4.1-nano-2025-04-14 gpt-5 o1 o3 davinci-002 babbage-002 "
    "ft:gpt-4o-mini-2024-07-18:acme::x ft:gpt-3.5-turbo:acme::x ft:davinci-002:acme::x".split(),
)
def test_models_have_tiktoken_s_encoding(model: str) -> None:
    assert encoding_of(model) == encoding_name_for_model(model)


def test_other_models_have_none() -> None:
    assert encoding_of("tunesmith-nano") is None
