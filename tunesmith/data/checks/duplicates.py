"""Rows that are there twice, exactly or almost.

Two texts are almost the same if five of six words are: their words are counted, order aside, and
as many as both have are held against all (Dice). Every sixth word may be another one then; case,
punctuation, spacing and the order of sentences do not matter.

No pair of rows is looked at that does not share a part of its sketch. A text's set of 5-byte
shingles is sketched by MinHash: of each of 64 permutations of all hashes the smallest is kept, 8
bits of it. Rows that have four of the 64 in common, at any of 64 choices of four, are candidates.
Editing 15 % of the words leaves a shingle similarity of 0.55 to 0.7, where a pair becomes a
candidate with a probability of 0.986 to 1; 0.1, as usual between rows on one subject, of 0.007.
(Four at disjoint places only, 16 choices, would find 0.8 to 0.99.) All 64 together then tell the
similarity to +-0.06, so nearly all chance candidates go before a text is read again.

Kept are 64 bytes a row, never a text; the cost is linear in the file, but for sorting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sketches = NDArray[np.uint8]
"""(rows, NUM_PERMUTATIONS); all zeros for a text that is too short to compare."""
Shingles = NDArray[np.uint32]
Words = NDArray[np.uint64]
"""A 32-bit hash of each word; of a word that is there twice, two different ones."""
Rows = NDArray[np.int64]

NUM_PERMUTATIONS = 64
ROWS_A_BAND, NUM_BANDS = 4, 64
SHINGLE_BYTES = 5
SIMILARITY = 5 / 6
"""The share of words that two near-duplicates have in common."""
MIN_CHARS = 24
"""Shorter texts are too alike by nature."""
BATCH_BYTES = 1 << 16
MAX_BYTES = 1 << 16
"""Of a longer text, as much of its beginning and of its end as this together is compared."""
# Rows that share a band: all pairs of a few, of many only the neighbours in the next band's order.
MAX_ALL_PAIRS = 24
NUM_NEIGHBOURS = 3
BATCH_PAIRS = 1 << 14
# Of the sketch, what is in common: fewer are no near-duplicates, more need no second look, and in
# between the words decide while that is affordable; afterwards as many as ENOUGH do.
MIN_EQUAL, ENOUGH_EQUAL, SURE_EQUAL = 25, 40, 54
MAX_READ = 100_000
"""Rows whose texts are read again."""
MAX_WORDS_KEPT = MAX_WORDS_AT_ONCE = 1 << 21

# Odd numbers: multiplying by them permutes the 32-bit numbers.
_MULTIPLIERS = (
    np.random.Generator(np.random.PCG64(5)).integers(
        1 << 31, 1 << 32, NUM_PERMUTATIONS, dtype=np.uint32
    )
    | 1
)
_MIX = np.uint32(0x9E3779B1)
# Signs of scripts without spaces count as words.
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(f"[{_NO_SPACES}]|[^\\s{_NO_SPACES}]+")


def _choices() -> NDArray[np.int64]:
    """(NUM_BANDS, 2 * ROWS_A_BAND): places of the sketch, each band's and then those to sort by."""
    generator = np.random.Generator(np.random.PCG64(7))
    num_rounds = NUM_BANDS * ROWS_A_BAND // NUM_PERMUTATIONS
    places = [generator.permutation(NUM_PERMUTATIONS) for _ in range(num_rounds)]
    bands = np.concatenate(places).reshape(NUM_BANDS, ROWS_A_BAND)
    return np.concatenate([bands, np.roll(bands, -1, axis=0)], axis=1)


_BANDS = _choices()


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
    """A row for each text."""
    result = np.zeros((len(texts), NUM_PERMUTATIONS), np.uint8)
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
    least = np.empty((len(batch), NUM_PERMUTATIONS), np.uint32)
    for number, multiplier in enumerate(_MULTIPLIERS):
        np.multiply(joined, multiplier, out=product)
        np.minimum.reduceat(product, starts, out=least[:, number])
    least ^= least >> np.uint32(15)
    least *= _MIX
    result[places] = np.maximum(least >> np.uint32(24), 1)


def _keys(sketches: Sketches, band: int) -> NDArray[np.uint64]:
    """What rows are sorted by: 32 bits of the band's, then 32 bits to order equal ones."""
    # Fancy indexing gives columns that lie together, read here as one number.
    return np.ascontiguousarray(sketches[:, _BANDS[band]]).view(">u8")[:, 0].astype(np.uint64)


def _sorted(sketches: Sketches, rows: Rows, band: int) -> tuple[NDArray[np.uint64], Rows]:
    """(the band of each row, the rows) by band and, where it is the same, by likeness."""
    # The row takes the place of the lowest bits: sorting numbers is far quicker than their places.
    bits = np.uint64(len(sketches).bit_length())
    mixed = _keys(sketches, band)[rows] >> bits << bits | rows.astype(np.uint64)
    mixed.sort()
    return mixed >> np.uint64(32), (mixed & np.uint64((1 << int(bits)) - 1)).astype(np.int64)


def pairs_within(sketches: Sketches) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Pairs of rows that may be alike (left < right), and how much of their sketches is equal.

    In batches of up to BATCH_PAIRS, some pairs more than once.
    """
    used = np.flatnonzero(sketches.any(axis=1))
    for band in range(NUM_BANDS):
        keys, rows = _sorted(sketches, used, band)
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else used
        sizes = np.diff(np.append(starts, len(keys)))
        is_small = np.repeat(sizes <= MAX_ALL_PAIRS, sizes)
        for distance in range(1, min(MAX_ALL_PAIRS, len(keys))):
            same = keys[distance:] == keys[:-distance]
            if distance > NUM_NEIGHBOURS:
                same &= is_small[:-distance]
            found = np.flatnonzero(same)
            if not len(found):
                break
            yield from _likely(sketches, sketches, rows[found], rows[found + distance])


def pairs_between(left: Sketches, right: Sketches) -> Iterator[tuple[Rows, Rows, Rows]]:
    """The same for pairs of a row of `left` with one of `right`."""
    used = [np.flatnonzero(each.any(axis=1)) for each in (left, right)]
    if not len(used[0]) or not len(used[1]):
        return
    for band in range(NUM_BANDS):
        keys, rows = _sorted(left, used[0], band)
        wanted, others = _sorted(right, used[1], band)
        starts = np.searchsorted(keys, wanted, "left")
        sizes = np.searchsorted(keys, wanted, "right") - starts
        # Of a large band the rows around where this one would stand.
        whole, last = _keys(left, band)[rows], len(keys) - 1
        stands = np.searchsorted(whole, _keys(right, band)[others])
        is_large = sizes > MAX_ALL_PAIRS
        room = np.minimum(sizes, np.where(is_large, 2 * NUM_NEIGHBOURS, MAX_ALL_PAIRS))
        first = np.clip(stands - NUM_NEIGHBOURS, starts, starts + sizes - room)
        first = np.where(is_large, first, starts)
        for step in range(int(room.max(initial=0))):
            has = np.flatnonzero(step < room)
            yield from _likely(left, right, rows[np.minimum(first[has] + step, last)], others[has])


def _likely(
    first: Sketches, second: Sketches, left: Rows, right: Rows
) -> Iterator[tuple[Rows, Rows, Rows]]:
    for start in range(0, len(left), BATCH_PAIRS):
        one, other = left[start : start + BATCH_PAIRS], right[start : start + BATCH_PAIRS]
        equal = (first[one] == second[other]).sum(axis=1)
        likely = equal >= MIN_EQUAL
        if not likely.any():
            continue
        one, other, equal = one[likely], other[likely], equal[likely]
        if first is second:
            one, other = np.minimum(one, other), np.maximum(one, other)
        yield one, other, equal


def words(text: str) -> Words:
    """The words of a text, or of the ends of one that is long."""
    if len(text) > MAX_BYTES:
        text = f"{text[: MAX_BYTES // 2]} {text[-MAX_BYTES // 2 :]}"
    parts = text.split() if text.isascii() else WORD.findall(text)
    hashes = np.sort(np.array([hash(part) for part in parts], np.int64).astype(np.uint64))
    is_first = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    sizes = np.diff(np.append(np.flatnonzero(is_first), len(hashes)))
    number = np.arange(len(hashes)) - np.repeat(np.flatnonzero(is_first), sizes)
    hashes += number.astype(np.uint64) * np.uint64(_MIX)
    return hashes & np.uint64(0xFFFFFFFF)


def similarity(pairs: Sequence[tuple[Words, Words]]) -> NDArray[np.float64]:
    """Of each pair, the share of words that both texts have (Dice)."""
    counts = [(len(one), len(other)) for one, other in pairs]
    sizes = np.array(counts, np.int64).reshape(len(pairs), 2)
    owners = np.repeat(np.arange(len(pairs), dtype=np.uint64), sizes.sum(axis=1))
    both = np.concatenate([np.empty(0, np.uint64), *(each for pair in pairs for each in pair)])
    both |= owners << np.uint64(32)
    both.sort()
    twice = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
    shared = np.bincount(twice.astype(np.int64), minlength=len(pairs))
    return np.asarray(2 * shared / np.maximum(sizes.sum(axis=1), 1))


class Comparer:
    """Tells which rows are alike: by their texts while that is affordable, then by sketches."""

    def __init__(self, left: Callable[[int], str], right: Callable[[int], str]) -> None:
        self._texts = (left, right)
        self._kept: tuple[dict[int, Words], dict[int, Words]] = ({}, {})
        self._num_kept = self._num_read = 0

    def alike(self, left: Rows, right: Rows, equal: Rows) -> NDArray[np.bool_]:
        """Of each pair; `equal` is how much of their sketches is."""
        result = equal >= SURE_EQUAL
        asked: list[int] = []
        pairs: list[tuple[Words, Words]] = []
        size = 0
        for place in np.flatnonzero(~result).tolist():
            if self._num_read >= MAX_READ:
                result[place] = equal[place] >= ENOUGH_EQUAL
                continue
            pair = self._words(0, int(left[place])), self._words(1, int(right[place]))
            asked.append(place)
            pairs.append(pair)
            size += len(pair[0]) + len(pair[1])
            if size > MAX_WORDS_AT_ONCE:
                result[asked] = similarity(pairs) >= SIMILARITY
                asked, pairs, size = [], [], 0
        result[asked] = similarity(pairs) >= SIMILARITY
        return result

    def _words(self, side: int, row: int) -> Words:
        kept = self._kept[side].get(row)
        if kept is None:
            if self._num_kept > MAX_WORDS_KEPT:
                self._kept[0].clear()
                self._kept[1].clear()
                self._num_kept = 0
            kept = self._kept[side][row] = words(self._texts[side](row))
            self._num_kept += len(kept)
            self._num_read += 1
        return kept


class Groups:
    """Rows joined into groups; the first row of a group stands for it."""

    def __init__(self, num_rows: int) -> None:
        self._parents = np.arange(num_rows)

    def firsts(self, rows: Rows) -> Rows:
        found: Rows = self._parents[rows]
        while not np.array_equal(above := self._parents[found], found):
            found = above
        self._parents[rows] = found
        return found

    def join(self, left: int, right: int) -> None:
        low, high = sorted((self._first(left), self._first(right)))
        self._parents[high] = low

    def _first(self, row: int) -> int:
        while (above := int(self._parents[row])) != row:
            self._parents[row] = self._parents[above]
            row = above
        return row

    def members(self) -> dict[int, list[int]]:
        """The rows of each group of two or more by its first row, in order."""
        firsts = self.firsts(np.arange(len(self._parents)))
        return exact(firsts)


def near(sketches: Sketches, text_of: Callable[[int], str]) -> dict[int, list[int]]:
    """Groups of rows that are almost the same, by their first row; `text_of` reads a row again."""
    groups = Groups(len(sketches))
    join_near(groups, sketches, text_of)
    return groups.members()


def join_near(groups: Groups, sketches: Sketches, text_of: Callable[[int], str]) -> None:
    """Joins the rows that are almost the same."""
    comparer = Comparer(text_of, text_of)
    for left, right, equal in pairs_within(sketches):
        apart = groups.firsts(left) != groups.firsts(right)
        left, right, equal = left[apart], right[apart], equal[apart]
        alike = comparer.alike(left, right, equal)
        for pair in zip(left[alike].tolist(), right[alike].tolist(), strict=True):
            groups.join(*pair)


def exact(hashes: NDArray[Any]) -> dict[int, list[int]]:
    """Rows with the same hash, by the first of them."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    bounds = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    starts, ends = np.append(0, bounds), np.append(bounds, len(order))
    several = ends - starts > 1
    groups = [order[a:b].tolist() for a, b in zip(starts[several], ends[several], strict=True)]
    return {rows[0]: rows for rows in sorted(groups)}
