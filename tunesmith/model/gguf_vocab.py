"""A tokenizer.json as llama.cpp knows tokenizers.

llama.cpp has two kinds that matter here: byte-level BPE, whose way of cutting a text into words has
to be one that it implements under a name, and SentencePiece BPE, whose merges are given as scores.
Any other tokenizer is refused: it would load, and then read texts differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.template import NAMED_TOKENS, template_sources, token_text
from tunesmith.errors import BaseModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
WORDS_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = "gpt-2"
# The steps of a pre-tokenizer -> llama.cpp's name for it.
WORDS: Mapping[tuple[str, ...], str] = {
    (GPT2,): GPT2,
    ("digits", GPT2): "smollm",
    (CONTRACTIONS + r"\p{N}{1,3}" + WORDS_END,): "llama-bpe",
    (CONTRACTIONS + r"\p{N}" + WORDS_END,): "qwen2",
    (TEKKEN,): "tekken",
}
SPACE = "\u2581"


@dataclass(frozen=True)
class Vocabulary:
    kind: str
    """"gpt2" (byte-level BPE) or "llama" (SentencePiece)."""
    words: str
    """llama.cpp's name for the way words are cut."""
    tokens: list[bytes]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    space_prefix: bool
    """SentencePiece: a space is put before each piece of text."""
    named: dict[str, int]
    """"bos" -> id; likewise eos, unk, sep and pad, where the tokenizer names them."""
    adds_bos: bool
    template: str
    """The chat template's source."""


def read_vocabulary(directory: Path, num_rows: int) -> Vocabulary:
    """The tokenizer of a model whose embedding has `num_rows`. Raises BaseModelError."""
    tokenizer: dict[str, Any] = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise _refused(f"a {model.get('type')} model")
    is_sentencepiece = bool(model.get("byte_fallback"))
    vocab: dict[str, int] = model["vocab"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    tokens = [f"[PAD{number}]".encode() for number in range(num_rows)]
    types = [UNUSED] * num_rows
    for text, number in vocab.items():
        tokens[number] = text.encode()
        types[number] = _type(text, model, is_sentencepiece)
    for added in tokenizer.get("added_tokens") or []:
        tokens[added["id"]] = added["content"].encode()
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    ids = vocab | {added["content"]: added["id"] for added in tokenizer.get("added_tokens") or []}
    config = _object(directory / "special_tokens_map.json")
    config |= _object(directory / "tokenizer_config.json")
    texts = {name.removesuffix("_token"): token_text(config.get(name)) for name in NAMED_TOKENS}
    named = {name: ids[text] for name, text in texts.items() if text in ids}
    return Vocabulary(
        kind="llama" if is_sentencepiece else "gpt2",
        words="default" if is_sentencepiece else _words(tokenizer.get("pre_tokenizer")),
        tokens=tokens,
        types=types,
        scores=_scores(model["merges"], vocab, num_rows) if is_sentencepiece else None,
        merges=None if is_sentencepiece else merges,
        space_prefix=is_sentencepiece and _puts_a_space_first(tokenizer),
        named=named,
        adds_bos=_adds_bos(tokenizer, config),
        template=template_sources(directory, config.get("chat_template"))["default"],
    )


def _type(text: str, model: Mapping[str, Any], is_sentencepiece: bool) -> int:
    if text == model.get("unk_token"):
        return UNKNOWN
    is_byte = is_sentencepiece and len(text) == 6 and text.startswith("<0x") and text[-1] == ">"
    return BYTE if is_byte else NORMAL


def _scores(merges: list[Any], vocab: Mapping[str, int], num_rows: int) -> list[float]:
    """SentencePiece joins the pair whose result scores best, so an earlier merge scores higher."""
    scores = [0.0] * num_rows
    for rank, merge in reversed(list(enumerate(merges))):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        scores[vocab[left + right]] = -float(rank + 1)
    # What no merge makes is a single character: it is never the result of joining.
    for text, number in vocab.items():
        if scores[number] == 0.0 and len(text) == 1:
            scores[number] = -float(len(merges) + 1 + number)
    return scores


def _words(pre_tokenizer: Mapping[str, Any] | None) -> str:
    steps = tuple(step for part in _parts(pre_tokenizer) if (step := _step(part)))
    if steps not in WORDS:
        raise _refused(f"a way of cutting words that llama.cpp has no name for ({steps!r:.80})")
    return WORDS[steps]


def _parts(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] == "Sequence":
        return [each for part in pre_tokenizer["pretokenizers"] for each in _parts(part)]
    return [pre_tokenizer]


def _step(part: Mapping[str, Any]) -> str | None:
    """What a part cuts at; None where it only writes bytes as characters."""
    kind = part["type"]
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return GPT2 if part.get("use_regex", True) else None
    if kind == "Digits" and part.get("individual_digits"):
        return "digits"
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return str(part["pattern"].get("Regex"))
    return f"{kind} ({', '.join(f'{key}={value}' for key, value in part.items() if key != 'type')})"


def _puts_a_space_first(tokenizer: Mapping[str, Any]) -> bool:
    normalizer = tokenizer.get("normalizer") or {}
    steps = normalizer.get("normalizers") or [normalizer]
    prepends = any(step.get("type") == "Prepend" for step in steps)
    return prepends or any(
        part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never"
        for part in _parts(tokenizer.get("pre_tokenizer"))
    )


def _adds_bos(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether the tokenizer itself puts the beginning-of-text token before a text."""
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"])
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors") or [processor]:
        single = step.get("single") or [{}]
        if step.get("type") == "TemplateProcessing" and "SpecialToken" in single[0]:
            return True
    return False


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _refused(what: str) -> BaseModelError:
    return BaseModelError(
        f"The tokenizer has {what}, so llama.cpp would read texts differently. Export with "
        "--format merged and use an engine that reads tokenizer.json."
    )
