"""Validation rows that the model is trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks.duplicates import alike, pairs_between
from tunesmith.data.checks.sketches import Rows, Sketches


def same(train: NDArray[np.uint64], valid: NDArray[np.uint64]) -> Rows:
    """For each validation row the first training row with its hash (not 0); -1 if none has it."""
    hashes, first = np.unique(train, return_index=True)
    if not len(hashes):
        return np.full(len(valid), -1)
    places = np.minimum(np.searchsorted(hashes, valid), len(hashes) - 1)
    return np.where((hashes[places] == valid) & (valid != 0), first[places], -1)


def near(train: Sketches, valid: Sketches) -> Rows:
    """For each validation row a training row that is almost the same; -1 if none is.

    Pairs are found and judged as near-duplicates are; only those across the files are looked at,
    so the cost does not grow with what is alike within the training file.
    """
    found = np.full(len(valid), -1)
    for left, right in pairs_between(train, valid):
        is_new = found[right] < 0
        left, right = left[is_new], right[is_new]
        same = alike(train, valid, left, right)
        found[right[same]] = left[same]
    return found
