"""Validation rows that the model is trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks.duplicates import Comparer, Sketches, candidates


def same(train: NDArray[np.uint64], valid: NDArray[np.uint64]) -> dict[int, int]:
    """For each validation row whose hash (not 0) is also a training row's, the first such row."""
    hashes, first = np.unique(train, return_index=True)
    if not len(hashes):
        return {}
    places = np.minimum(np.searchsorted(hashes, valid), len(hashes) - 1)
    found = (hashes[places] == valid) & (valid != 0)
    return {int(row): int(first[places[row]]) for row in np.flatnonzero(found)}


def near(
    train: Sketches,
    valid: Sketches,
    train_text: Callable[[int], str],
    valid_text: Callable[[int], str],
) -> dict[int, int]:
    """For each validation row that is almost a training row, that row."""
    num_train = len(train)
    both = np.concatenate([train, valid])

    def text_of(row: int) -> str:
        return train_text(row) if row < num_train else valid_text(row - num_train)

    comparer = Comparer(text_of)
    found: dict[int, int] = {}
    for left, right, shared in candidates(both, num_train):
        row = right - num_train
        if row not in found and comparer.alike(left, right, shared):
            found[row] = left
    return dict(sorted(found.items()))
