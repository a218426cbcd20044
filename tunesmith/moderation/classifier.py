"""The embedded moderator: a linear model over hashed features, a few megabytes and numpy alone.

It reads words, not meanings; docs/moderation.md says how often it is right. A long text is judged
in windows, and what one window is flagged for the text is flagged for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.moderation.features import features
from tunesmith.moderation.verdict import CATEGORIES, Verdict

WEIGHTS = Path(__file__).resolve().parents[1] / "assets" / "moderation" / "weights.safetensors"
NAME = "tunesmith-moderation-1"

# About what it was trained on; the last characters of a window are the first of the next.
WINDOW_CHARS = 1000
OVERLAP_CHARS = 100
# What is hashed at once; it takes about a hundred times as many bytes.
BATCH_CHARS = 1 << 17
DTYPES = {"F16": np.float16, "F32": np.float32}

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    categories: tuple[str, ...]
    """C of them."""
    table_FC: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    threshold_C: NDArray[np.float32]
    """Logits from which a text is flagged; infinite where it never is."""


def load(path: Path = WEIGHTS) -> Weights:
    """Reads a safetensors file as moderation/train.py writes it."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    tensors = {}
    for name, about in header.items():
        if name != "__metadata__":
            first, last = about["data_offsets"]
            content = np.frombuffer(raw[start + first : start + last], DTYPES[about["dtype"]])
            tensors[name] = content.reshape(about["shape"]).astype(np.float32)
    categories = tuple(json.loads(header["__metadata__"]["categories"]))
    return Weights(categories, tensors["table"], tensors["bias"], tensors["threshold"])


def logits(weights: Weights, texts: Sequence[str]) -> Logits:
    """(texts, C)."""
    sums = np.zeros((len(texts), len(weights.categories)), np.float32)
    counts = np.zeros(len(texts), np.float32)
    for text_F, bucket_F in features(texts):
        if len(text_F):
            first = np.flatnonzero(np.diff(text_F, prepend=-1))
            sums[text_F[first]] += np.add.reduceat(weights.table_FC[bucket_F], first, axis=0)
            counts[text_F[first]] += np.diff(first, append=len(text_F))
    length = np.sqrt(np.maximum(counts, 1))[:, None]
    return (sums / length + weights.bias_C).astype(np.float32)


def windows(text: str) -> list[str]:
    if len(text) <= WINDOW_CHARS:
        return [text]
    step = WINDOW_CHARS - OVERLAP_CHARS
    return [text[at : at + WINDOW_CHARS] for at in range(0, len(text) - OVERLAP_CHARS, step)]


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """The windows of all texts with the number of the text that each is of, some at a time."""
    owners: list[int] = []
    pieces: list[str] = []
    num_chars = 0
    for owner, text in enumerate(texts):
        for piece in windows(text):
            owners.append(owner)
            pieces.append(piece)
            num_chars += len(piece)
            if num_chars >= BATCH_CHARS:
                yield owners, pieces
                owners, pieces, num_chars = [], [], 0
    if pieces:
        yield owners, pieces


class Classifier:
    """Judges English texts; says nothing of categories that it has not learned."""

    model = NAME
    max_texts = 1024

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        able = np.isfinite(weights.threshold_C)
        self._columns = {
            name: weights.categories.index(name)
            for name in CATEGORIES
            if name in weights.categories and able[weights.categories.index(name)]
        }

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        worst = np.full((len(texts), len(self._weights.categories)), -np.inf, np.float32)
        for owners, pieces in _batches(texts):
            np.maximum.at(worst, owners, logits(self._weights, pieces))
        # 0.5 is where a category begins to be flagged.
        scores = 1 / (1 + np.exp(-np.clip(worst - self._weights.threshold_C, -30, 30)))
        return [self._verdict(row) for row in scores.tolist()]

    def _verdict(self, row: list[float]) -> Verdict:
        scores = {name: row[column] for name, column in self._columns.items()}
        return Verdict(scores, tuple(name for name, score in scores.items() if score >= 0.5))


@cache
def embedded() -> Classifier:
    """The one that ships with the package; read once."""
    return Classifier(load())
