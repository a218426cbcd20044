"""Rows that are there twice, exactly or almost.

A text's set of 5-byte shingles is sketched by MinHash: of each of 64 permutations of all hashes
the smallest is kept, and four of them make a band. Texts that share a band are candidates: at a
similarity of 0.8 that is nearly certain (1 - (1 - 0.8**4)**16 = 0.9998). A candidate pair counts
only if the exact similarity of the two texts, read again from the file, is high enough. Kept are
64 bytes a row, never a text; the cost is linear in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Sketches = NDArray[np.uint32]
"""(rows, NUM_BANDS)."""
Shingles = NDArray[np.uint32]

NUM_BANDS, ROWS_A_BAND = 16, 4
SHINGLE_BYTES = 5
SIMILARITY = 0.8
"""The share of shingles that two near-duplicates have in common, of those that either has."""
MIN_CHARS = 24
"""Shorter texts are too alike by nature."""
BATCH_BYTES = 1 << 16
MAX_BYTES = 1 << 16
"""Of a longer text, as much of its beginning and of its end as this together is compared."""
# Rows that share a band: all pairs of a few, of many only the neighbours in the next band's order.
MAX_ALL_PAIRS = 24
NUM_NEIGHBOURS = 3
BATCH_PAIRS = 1 << 16
# Of 16 bands, texts of similarity 0.8 share 6.5 on average, and 2 or more with 0.997.
MIN_BANDS = 2
SURE_BANDS = 11
MAX_COMPARED = 20_000
"""Pairs whose texts are read again; beyond that, shared bands decide."""
ENOUGH_BANDS = 6
CACHED_TEXTS = 4096
MAX_REFUSED = 200_000

# Odd numbers: multiplying by them permutes the 32-bit numbers.
_MULTIPLIERS = (
    np.random.Generator(np.random.PCG64(5)).integers(
        1 << 31, 1 << 32, NUM_BANDS * ROWS_A_BAND, dtype=np.uint32
    )
    | 1
)
_MIX = np.uint32(0x9E3779B1)


def shingles(text: str) -> Shingles:
    """A hash of each 5 bytes of the text; empty for a text that is too short to compare."""
    if len(text) < MIN_CHARS:
        return np.empty(0, np.uint32)
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        data = data[: MAX_BYTES // 2] + data[-MAX_BYTES // 2 :]
    return _hashes(np.frombuffer(data, np.uint8).astype(np.uint32))


def _hashes(data: Shingles) -> Shingles:
    count = len(data) - SHINGLE_BYTES + 1
    result = data[:count].copy()
    for place in range(1, SHINGLE_BYTES):
        result *= np.uint32(0x01000193)
        result ^= data[place : count + place]
    result ^= result >> np.uint32(15)
    result *= _MIX
    result ^= result >> np.uint32(13)
    return result


def sketch(texts: Sequence[str]) -> Sketches:
    """A row of bands for each text; zeros for one that is too short."""
    result = np.zeros((len(texts), NUM_BANDS), np.uint32)
    batch: list[tuple[int, Shingles]] = []
    size = 0
    for place, text in enumerate(texts):
        hashes = shingles(text)
        if len(hashes):
            batch.append((place, hashes))
            size += len(hashes)
        if size >= BATCH_BYTES:
            _sketch_batch(batch, result)
            batch, size = [], 0
    if batch:
        _sketch_batch(batch, result)
    return result


def _sketch_batch(batch: list[tuple[int, Shingles]], result: Sketches) -> None:
    places = [place for place, _ in batch]
    joined = np.concatenate([hashes for _, hashes in batch])
    starts = np.cumsum([0, *(len(hashes) for _, hashes in batch[:-1])])
    product = np.empty_like(joined)
    for band in range(NUM_BANDS):
        mixed = np.full(len(batch), band + 1, np.uint32)
        for number in range(band * ROWS_A_BAND, (band + 1) * ROWS_A_BAND):
            np.multiply(joined, _MULTIPLIERS[number], out=product)
            mixed ^= np.minimum.reduceat(product, starts)
            mixed *= _MIX
            mixed ^= mixed >> np.uint32(16)
        result[places, band] = np.maximum(mixed, 1)


def candidates(sketches: Sketches, num_left: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Pairs of rows (a < b) that may be alike and the bands they share, some more than once.

    With `num_left`, only pairs of one of the first `num_left` rows with one of the others.
    """
    for band in range(NUM_BANDS):
        keys = sketches[:, band]
        order = np.lexsort((sketches[:, (band + 1) % NUM_BANDS], keys))
        order = order[keys[order] != 0]
        ordered = keys[order]
        _, places, sizes = np.unique(ordered, return_inverse=True, return_counts=True)
        is_small = sizes[places] <= MAX_ALL_PAIRS
        for distance in range(1, MAX_ALL_PAIRS):
            same = ordered[distance:] == ordered[:-distance]
            if distance > NUM_NEIGHBOURS:
                same &= is_small[:-distance]
            found = np.flatnonzero(same)
            if not len(found):
                break
            for start in range(0, len(found), BATCH_PAIRS):
                part = found[start : start + BATCH_PAIRS]
                yield from _sharing(sketches, order[part], order[part + distance], num_left)


def _sharing(
    sketches: Sketches, left: NDArray[np.int64], right: NDArray[np.int64], num_left: int | None
) -> Iterator[tuple[int, int, int]]:
    low, high = np.minimum(left, right), np.maximum(left, right)
    if num_left is not None:
        crossing = (low < num_left) & (high >= num_left)
        low, high = low[crossing], high[crossing]
    shared = (sketches[low] == sketches[high]).sum(axis=1)
    likely = shared >= MIN_BANDS
    yield from zip(
        low[likely].tolist(), high[likely].tolist(), shared[likely].tolist(), strict=True
    )


def similarity(left: Shingles, right: Shingles) -> float:
    """The share of shingles in common (Jaccard); both sorted and without repeats."""
    if not len(left) or not len(right):
        return 0.0
    both = len(np.intersect1d(left, right, assume_unique=True))
    return both / (len(left) + len(right) - both)


class Comparer:
    """Tells whether two rows are alike, by their texts while that is affordable."""

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._num_compared = 0
        self._shingles_of = lru_cache(CACHED_TEXTS)(lambda row: np.unique(shingles(text_of(row))))

    def alike(self, left: int, right: int, shared: int) -> bool:
        """`shared` is the number of bands they have in common."""
        if shared >= SURE_BANDS:
            return True
        if self._num_compared >= MAX_COMPARED:
            return shared >= ENOUGH_BANDS
        self._num_compared += 1
        return similarity(self._shingles_of(left), self._shingles_of(right)) >= SIMILARITY


class Groups:
    """Rows joined into groups."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, row: int) -> int:
        root = row
        while (above := self._parent.get(root, root)) != root:
            root = above
        while (above := self._parent.get(row, row)) != root:
            self._parent[row] = root
            row = above
        return root

    def join(self, left: int, right: int) -> None:
        low, high = sorted((self.find(left), self.find(right)))
        self._parent[high] = low
        self._parent.setdefault(low, low)

    def members(self) -> dict[int, list[int]]:
        """The rows of each group by its first row, in order."""
        result: dict[int, list[int]] = {}
        for row in sorted(self._parent):
            result.setdefault(self.find(row), []).append(row)
        return result


def near(sketches: Sketches, text_of: Callable[[int], str]) -> dict[int, list[int]]:
    """Groups of rows that are almost the same, by their first row; `text_of` reads a row again."""
    groups, comparer = Groups(), Comparer(text_of)
    refused: set[tuple[int, int]] = set()
    for left, right, shared in candidates(sketches):
        if (left, right) in refused or groups.find(left) == groups.find(right):
            continue
        if comparer.alike(left, right, shared):
            groups.join(left, right)
        elif len(refused) < MAX_REFUSED:
            refused.add((left, right))
    return groups.members()


def exact(hashes: NDArray[np.uint64]) -> dict[int, list[int]]:
    """Rows with the same hash, by the first of them."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    bounds = np.flatnonzero(np.diff(ordered)) + 1
    starts, ends = np.append(0, bounds), np.append(bounds, len(order))
    several = ends - starts > 1
    groups = [order[a:b].tolist() for a, b in zip(starts[several], ends[several], strict=True)]
    return {rows[0]: rows for rows in sorted(groups)}
