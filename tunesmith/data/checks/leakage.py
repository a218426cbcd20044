"""Validation rows that the model is trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks.duplicates import alike, pairs_between
from tunesmith.data.checks.sketches import Sketches


def same(train: NDArray[np.uint64], valid: NDArray[np.uint64]) -> dict[int, int]:
    """For each validation row whose hash (not 0) is also a training row's, the first such row."""
    hashes, first = np.unique(train, return_index=True)
    if not len(hashes):
        return {}
    places = np.minimum(np.searchsorted(hashes, valid), len(hashes) - 1)
    found = (hashes[places] == valid) & (valid != 0)
    return {int(row): int(first[places[row]]) for row in np.flatnonzero(found)}


def near(train: Sketches, valid: Sketches) -> dict[int, int]:
    """For each validation row that is almost a training row, that row.

    Pairs are found and judged as near-duplicates are; only those across the files are looked at,
    so the cost does not grow with what is alike within the training file.
    """
    found = np.full(len(valid), -1)
    for left, right in pairs_between(train, valid):
        is_new = found[right] < 0
        left, right = left[is_new], right[is_new]
        same = alike(train, valid, left, right)
        found[right[same]] = left[same]
    return {int(row): int(found[row]) for row in np.flatnonzero(found >= 0)}
