"""The ids of a text's pieces are the ids of the text, whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from tests.families import FAMILIES, LLAMA3_SPLIT
from tunesmith.data.cuts import piece_pattern
from tunesmith.data.encode import MAX_ALL_CHARS, KeptIds
from tunesmith.data.render import Renderer

Rendering = Callable[[str], tuple[Path, Renderer]]

DATA = Path(__file__).parents[2] / "data"
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
O200K_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "gpt2": GPT2_SPLIT,
    "llama3": LLAMA3_SPLIT,
    "qwen2": LLAMA3_SPLIT.replace("{1,3}", ""),
    "o200k": O200K_SPLIT,
}
text = st.text(
    st.sampled_from(" \n\t\r'sStT019.,!/-\u2581\u00a0\u3000\u0301\u00e9\u4e2d\x1c\x85\u200b<|>")
    | st.characters(codec="utf-8"),
    max_size=40,
)


def ids(tokenizer: Tokenizer, given: str) -> list[int]:
    return list(tokenizer.encode(given, add_special_tokens=False).ids)


def check(tokenizer: Tokenizer, whole: str) -> int:
    """The number of pieces."""
    pattern = piece_pattern(tokenizer)
    assert pattern is not None
    pieces = pattern.findall(whole)
    assert "".join(pieces) == whole
    expected, head = ids(tokenizer, whole), ids(tokenizer, "a")
    found = ids(tokenizer, pieces[0]) if pieces else []
    for piece in pieces[1:]:
        assert piece[0] == " " and not piece[1].isspace()
        found += ids(tokenizer, f"a{piece}")[len(head) :]
    assert found == expected
    return len(pieces)


@settings(max_examples=100, deadline=None)
@given(whole=text)
@pytest.mark.parametrize("family", [*FAMILIES, "ours"])
def test_families(rendering: Rendering, family: str, whole: str) -> None:
    check(rendering(family)[1].tokenizer, whole)


@pytest.mark.parametrize("family", [*FAMILIES, "ours"])
def test_real_text(rendering: Rendering, family: str) -> None:
    tokenizer = rendering(family)[1].tokenizer
    tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    for line in (DATA / "sgd_chat.jsonl").read_text().splitlines()[:20]:
        words = json.loads(line)["messages"][1]["content"]
        mixed = "".join(f"{words}{token} {token}\n {words}" for token in tokens)
        assert check(tokenizer, mixed) > len(tokens)


def byte_level(*splits: pre_tokenizers.PreTokenizer, use_regex: bool = False) -> Tokenizer:
    """Merges across every kind of border, so that a wrong cut is seen."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a in "\u0120as.\u010a'1" for b in "\u0120as.\u010a'1"]
    vocab = {piece: number for number, piece in enumerate([*alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)]
    )
    return tokenizer


@settings(max_examples=120, deadline=None)
@given(whole=st.text("as .\n'1\t\u00a0\u4e2d", max_size=24) | text)
@pytest.mark.parametrize("name", SPLITS)
def test_known_splits(name: str, whole: str) -> None:
    split = pre_tokenizers.Split(Regex(SPLITS[name]), "isolated")
    check(byte_level(split), whole)
    check(byte_level(pre_tokenizers.Digits(individual_digits=True), split), whole)
    check(byte_level(use_regex=True), whole)


def test_nothing_is_promised_of_others() -> None:
    assert piece_pattern(byte_level()) is None
    joins = pre_tokenizers.Split(Regex(r"\S+ ?|\s+"), "isolated")
    assert piece_pattern(byte_level(joins)) is None
    removed = pre_tokenizers.Split(Regex(GPT2_SPLIT), "removed")
    assert piece_pattern(byte_level(removed)) is None
    words = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert piece_pattern(words) is None
    for token in (
        AddedToken("<x>", lstrip=True),
        AddedToken("<x>", single_word=True),
        AddedToken("<x y>"),
    ):
        tokenizer = byte_level(use_regex=True)
        assert piece_pattern(tokenizer) is not None
        tokenizer.add_tokens([token])
        assert piece_pattern(tokenizer) is None
    changed = byte_level(use_regex=True)
    changed.normalizer = normalizers.NFKC()
    assert piece_pattern(changed) is None


def test_a_vocabulary_that_joins_words_is_not_cut(rendering: Rendering) -> None:
    spaced = json.loads(rendering("mistral-metaspace")[1].tokenizer.to_str())
    spaced["model"]["vocab"]["e\u2581l"] = len(spaced["model"]["vocab"])
    assert piece_pattern(Tokenizer.from_str(json.dumps(spaced))) is None


def test_kept_ids_stay_within_their_memory() -> None:
    asked: list[str] = []
    kept = KeptIds(lambda text: asked.append(text) or [len(text)])
    assert kept["one"] == kept["one"] == (3,) and asked == ["one"]
    long = "x" * (MAX_ALL_CHARS // 100)
    assert kept[long] == (len(long),) and long not in kept
    for number in range(MAX_ALL_CHARS // 1000):
        assert kept[f"{number:01000d}"] == (1000,)
    assert len(kept) * 1000 <= MAX_ALL_CHARS and "one" not in kept
