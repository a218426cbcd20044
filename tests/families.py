"""Tokenizers and chat templates in the form of public families, small enough to make in a test.

The templates under tests/templates are written in the families' known form; the tokenizers have
their kind (byte-level or SentencePiece-like) and their special tokens, with a small vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

TEMPLATES = Path(__file__).parent / "templates"
TEXT = (
    "The quick brown fox jumps over the lazy dog, and then some more words follow it. "
    "What is the weather in Oslo tomorrow? It will rain in the morning. "
    'You are a helpful assistant. {"name": "get_weather", "arguments": {"city": "Oslo"}}\n'
    "system user assistant tool [INST] [/INST] function call 0 1 2 3 4 5 6 7 8 9"
)
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """One family: the kind of its tokenizer, its tokens, and its template."""

    template: str
    kind: str
    """"byte" (byte-level BPE), "legacy" (SentencePiece with a space before every section),
    "metaspace" (a space before the text only) or "spaces" (no space before it)."""
    special: tuple[str, ...]
    stop: str
    plain: tuple[str, ...] = ()
    """Added tokens that are not special."""
    rstrip: tuple[str, ...] = ()
    """Special tokens that swallow the white space after them."""
    named: dict[str, str] = field(default_factory=dict)
    nfc: bool = False


GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
G_NAMED = {"bos_token": "<bos>", "eos_token": "<eos>"}
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
LLAMA = ("<s>", "</s>")
S_NAMED = {"bos_token": "<s>", "eos_token": "</s>"}
FAMILIES = {
    "qwen2.5": Family(
        "qwen2.5", "byte", QWEN, "<|im_end|>", TAGS[:2], named={"eos_token": "<|im_end|>"}, nfc=True
    ),
    "qwen3": Family(
        "qwen3", "byte", QWEN, "<|im_end|>", TAGS, named={"eos_token": "<|im_end|>"}, nfc=True
    ),
    "llama3": Family(
        "llama3",
        "byte",
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
            *("<|eom_id|>", "<|eot_id|>"),
        ),
        "<|eot_id|>",
        named={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "mistral-legacy": Family("mistral", "legacy", LLAMA, "</s>", named=S_NAMED),
    "mistral-metaspace": Family("mistral", "metaspace", LLAMA, "</s>", named=S_NAMED),
    "mistral-tools": Family(
        "mistral-tools",
        "metaspace",
        (
            *LLAMA,
            *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
            *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ),
        "</s>",
        named=S_NAMED,
    ),
    "smollm": Family("smollm", "byte", QWEN, "<|im_end|>", named={"eos_token": "<|im_end|>"}),
    "phi3": Family(
        "phi3",
        "legacy",
        (*LLAMA, "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        rstrip=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        named={"bos_token": "<s>", "eos_token": "<|endoftext|>"},
    ),
    "gemma2": Family("gemma2", "spaces", GEMMA, "<end_of_turn>", named=G_NAMED),
    "gemma3": Family("gemma3", "spaces", GEMMA, "<end_of_turn>", named=G_NAMED),
    "r1": Family(
        "r1",
        "byte",
        ("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>"),
        "<|end|>",
        TAGS[2:],
        named={"bos_token": "<|begin|>", "eos_token": "<|end|>"},
    ),
}


def write_family(name: str, directory: Path) -> Path:
    """Writes tokenizer and template files as a model directory of the family has them."""
    family = FAMILIES[name]
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_level(family) if family.kind == "byte" else sentencepiece(family)
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, rstrip=token in family.rstrip)
            for token in family.special
        ]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in family.plain])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **family.named}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    template = TEMPLATES / f"{family.template}.jinja"
    # As the hub's files have it: without the newline that ends a text file.
    (directory / "chat_template.jinja").write_text(template.read_text().removesuffix("\n"))
    return directory


def byte_level(family: Family) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if family.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [TEXT] * 4,
        trainers.BpeTrainer(
            vocab_size=600,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return tokenizer


@cache
def _spaced_pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges over text whose spaces are written as U+2581."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        [TEXT] * 4, trainers.BpeTrainer(vocab_size=300, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    return (
        {piece: number for number, piece in enumerate(dict.fromkeys(pieces))},
        [(left, right) for left, right in model["merges"]],
    )


def sentencepiece(family: Family) -> Tokenizer:
    """BPE with bytes for what is not in the vocabulary, as Llama 2 and Mistral have it."""
    vocab, merges = _spaced_pieces()
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if family.kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    elif family.kind == "spaces":
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if family.kind != "spaces":
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer
