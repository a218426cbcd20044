"""Tokens as OpenAI counts them, offline: what a file would cost there.

The rank files come with the package and are checked against tiktoken's own checksums, so nothing is
ever downloaded. Jobs here are counted with the base model's own tokenizer, never with these.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from tiktoken import Encoding

# The counting rule of OpenAI's data preparation notebook.
TOKENS_PER_MESSAGE = 3
TOKENS_PER_NAME = 1
TOKENS_PER_EXAMPLE = 3

NUM_CACHED, MAX_CACHED_CHARS = 512, 8192

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTION}",
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTION}",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
)
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)",
    r"[^\r\n\p{L}\p{N}]?+\p{L}++",
    r"\p{N}{1,3}+",
    r" ?[^\s\p{L}\p{N}]++[\r\n]*+",
    r"\s++$",
    r"\s*[\r\n]",
    r"\s+(?!\S)",
    r"\s",
)


@dataclass(frozen=True)
class _Spec:
    sha256: str
    pattern: str
    special: Mapping[str, int]


ENCODINGS: Mapping[str, _Spec] = {
    "cl100k_base": _Spec(
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        "|".join(_CL100K),
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": _Spec(
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(_O200K),
        {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
}
# The beginning of a model's name -> its encoding; the longest that fits counts.
MODELS: Mapping[str, str] = {
    "babbage-002": "cl100k_base",
    "davinci-002": "cl100k_base",
    "gpt-3.5": "cl100k_base",
    "gpt-35": "cl100k_base",
    "gpt-4": "cl100k_base",
    "gpt-4o": "o200k_base",
    "gpt-4.1": "o200k_base",
    "gpt-4.5": "o200k_base",
    "gpt-5": "o200k_base",
    "chatgpt-4o": "o200k_base",
    "o1": "o200k_base",
    "o3": "o200k_base",
    "o4-mini": "o200k_base",
}


@cache
def load_encoding(name: str) -> Encoding:
    """One of `ENCODINGS`, from the package. About 0.3 s the first time. Raises KeyError."""
    spec = ENCODINGS[name]
    packed = resources.files("tunesmith") / "assets" / "openai" / f"{name}.tiktoken.xz"
    raw = lzma.decompress(packed.read_bytes())
    if hashlib.sha256(raw).hexdigest() != spec.sha256:
        raise RuntimeError(f"{packed} is damaged. Install tunesmith again.")
    ranks = {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in raw.splitlines())
    }
    return Encoding(
        name, pat_str=spec.pattern, mergeable_ranks=ranks, special_tokens=dict(spec.special)
    )


def encoding_of(model: str) -> str | None:
    """The name of a hosted model's encoding; None for a model that is not OpenAI's."""
    name = model.removeprefix("ft:")
    fitting = [start for start in MODELS if name.startswith(start)]
    return MODELS[max(fitting, key=len)] if fitting else None


# On some hundred thousand blanks in a row tiktoken's stack overflows, which ends the program, so
# they are counted in parts.
BLANKS = re.compile(r"(\s{100000})")


def num_text_tokens(encoding: Encoding, text: str) -> int:
    """A spelled-out control token counts as the text that it is."""
    if len(text) <= MAX_CACHED_CHARS:
        return _num_cached(encoding, text)
    return sum(len(encoding.encode_ordinary(part)) for part in BLANKS.split(text) if part)


@lru_cache(NUM_CACHED)
def _num_cached(encoding: Encoding, text: str) -> int:
    """What rows have in common (roles, system messages), and an answer that is counted twice."""
    return len(encoding.encode_ordinary(text))


def num_conversation_tokens(encoding: Encoding, messages: list[dict[str, Any]]) -> int:
    """The notebook's rule: every value of a message, 3 a message, 1 a name, 3 an example.

    The rule knows texts only. Values that are none (tool calls, content parts) count as JSON;
    null and numbers as nothing.
    """
    num = TOKENS_PER_EXAMPLE
    for message in messages:
        num += TOKENS_PER_MESSAGE
        for key, value in message.items():
            num += num_text_tokens(encoding, _text(value))
            if key == "name":
                num += TOKENS_PER_NAME
    return num


def num_row_tokens(encoding: Encoding, row: dict[str, Any]) -> int:
    """Of a row of any kind, whatever it holds: its messages, of a pair prompt and both answers.

    Rows without messages are no conversations: of them the texts count.
    """
    source = row.get("input")
    lists = (
        row.get("messages"),
        source.get("messages") if isinstance(source, dict) else None,
        row.get("preferred_output"),
        row.get("non_preferred_output"),
    )
    messages = [each for one in lists if isinstance(one, list) for each in one]
    if messages:
        return num_conversation_tokens(encoding, [m for m in messages if isinstance(m, dict)])
    return sum(num_text_tokens(encoding, _text(value)) for value in row.values())


def num_answer_tokens(encoding: Encoding, messages: list[dict[str, Any]]) -> int:
    """Tokens in the content of assistant messages, as the notebook counts them."""
    return sum(
        num_text_tokens(encoding, _text(message.get("content")))
        for message in messages
        if message.get("role") == "assistant"
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else ""
