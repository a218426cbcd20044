"""The one text that stands for system messages that are almost equal, across a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.data.checks.systems import variants
from tunesmith.data.checks.view import SYSTEM_ROLES, dicts
from tunesmith.data.pieces import Reader

# Different texts that are remembered; a file with more has no common system message.
MAX_TEXTS = 10_000


def same_system(path: Path) -> dict[str, str]:
    """Each system message that is almost a more frequent one -> that one, as the check finds it."""
    counts: Counter[str] = Counter()
    for piece in Reader(path).pieces():
        counts.update(text for text in _systems(piece.value) if _has_room(counts, text))
    texts = dict(enumerate(counts))
    numbers = Counter({number: counts[text] for number, text in texts.items()})
    found = variants(texts, numbers)
    return {texts[variant]: texts[model] for variant, model in found.items()}


def _has_room(counts: Counter[str], text: str) -> bool:
    return text in counts or len(counts) < MAX_TEXTS


def _systems(row: Any) -> Iterator[str]:
    for message in dicts(row.get("messages")) if isinstance(row, dict) else ():
        if message.get("role") in SYSTEM_ROLES and isinstance(message.get("content"), str):
            yield message["content"]
