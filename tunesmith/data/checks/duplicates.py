"""Rows that are there twice, exactly or almost.

Two texts are almost the same if about five of six words are: their words are counted, order aside,
and as many as both have are held against all (Dice). Every sixth word may be another one then;
case, punctuation, spacing and the order of sentences do not matter.

No pair of rows is looked at that does not share a part of its sketch: rows that have four of their
64 minima in common, at any of 64 choices of four, are candidates. Editing 15 % of the words leaves
a shingle similarity of 0.55 to 0.7, where a pair becomes a candidate with a probability of 0.986 to
1; 0.1, as usual between rows on one subject, of 0.007. (Four at disjoint places only, 16 choices,
would find 0.8 to 0.99.) All 64 together then let nearly all chance candidates go, and the bits of
the words decide. A text is never read again.

The cost is linear in the file, but for sorting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.checks.sketches import (
    NUM_PERMUTATIONS,
    Rows,
    Sketches,
    num_equal,
    similarity,
)

Pairs = tuple[Rows, Rows]
ROWS_A_BAND, NUM_BANDS = 4, 64
MIN_SIMILARITY = 5 / 6 - 1e-9
"""The share of words that two near-duplicates have in common."""
# Rows that share a band: all pairs of a few, of many only the neighbours in the next band's order.
MAX_ALL_PAIRS = 24
NUM_NEIGHBOURS = 3
BATCH_PAIRS = 1 << 14
# Of the minima, what is in common: fewer are no near-duplicates; more are, whatever the words, as
# of texts that are one long word.
MIN_EQUAL, SURE_EQUAL = 25, 54


def _choices() -> NDArray[np.int64]:
    """(NUM_BANDS, 2 * ROWS_A_BAND): places of the sketch, each band's and then those to sort by."""
    generator = np.random.Generator(np.random.PCG64(7))
    num_rounds = NUM_BANDS * ROWS_A_BAND // NUM_PERMUTATIONS
    places = [generator.permutation(NUM_PERMUTATIONS) for _ in range(num_rounds)]
    bands = np.concatenate(places).reshape(NUM_BANDS, ROWS_A_BAND)
    return np.concatenate([bands, np.roll(bands, -1, axis=0)], axis=1)


_BANDS = _choices()


def _keys(sketches: Sketches, rows: Rows, band: int) -> NDArray[np.uint64]:
    """What rows are sorted by: 32 bits of the band's, then 32 bits to order equal ones."""
    result = np.empty(len(rows), np.uint64)
    for batch in _batches(len(rows)):
        # Eight bytes that lie together, read as one number.
        minima = sketches["minima"][rows[batch, np.newaxis], _BANDS[band]]
        result[batch] = np.ascontiguousarray(minima).view(">u8")[:, 0]
    return result


def _batches(num: int) -> Iterator[slice]:
    """Of a million rows nothing is made in one piece that can be made in several."""
    return (slice(start, start + BATCH_PAIRS) for start in range(0, num, BATCH_PAIRS))


def _sorted(sketches: Sketches, rows: Rows, band: int) -> tuple[NDArray[np.uint32], Rows]:
    """(the band of each row, the rows) by band and, where it is the same, by likeness."""
    # The row takes the place of the lowest bits: sorting numbers is far quicker than their places.
    bits = np.uint64(len(sketches).bit_length())
    mixed = _keys(sketches, rows, band)
    mixed >>= bits
    mixed <<= bits
    mixed |= rows.view(np.uint64)
    mixed.sort()
    keys = (mixed >> np.uint64(32)).astype(np.uint32)
    mixed &= np.uint64((1 << int(bits)) - 1)
    return keys, mixed.view(np.int64)


def _comparable(sketches: Sketches) -> Rows:
    """The rows that are not too short."""
    return np.flatnonzero(sketches["minima"][:, 0])


def pairs_within(sketches: Sketches, among: Rows) -> Iterator[Pairs]:
    """Pairs of rows that may be alike, some more than once."""
    used = among[sketches["minima"][among, 0] != 0]
    for band in range(NUM_BANDS):
        keys, rows = _sorted(sketches, used, band)
        is_small = _is_in_few(keys)
        for distance in range(1, min(MAX_ALL_PAIRS, len(keys))):
            same = keys[distance:] == keys[:-distance]
            if distance > NUM_NEIGHBOURS:
                same &= is_small[:-distance]
            found = np.flatnonzero(same)
            if not len(found):
                break
            for batch in _batches(len(found)):
                yield rows[found[batch]], rows[found[batch] + distance]


def _is_in_few(keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Of sorted keys, whether there are few like it."""
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    sizes = np.diff(np.append(starts, len(keys)))
    return np.repeat(sizes <= MAX_ALL_PAIRS, sizes)


def pairs_between(left: Sketches, right: Sketches) -> Iterator[Pairs]:
    """The same for pairs of a row of `left` with one of `right`."""
    used = [_comparable(each) for each in (left, right)]
    if not len(used[0]) or not len(used[1]):
        return
    for band in range(NUM_BANDS):
        keys, rows = _sorted(left, used[0], band)
        wanted, others = _sorted(right, used[1], band)
        starts = np.searchsorted(keys, wanted, "left")
        sizes = np.searchsorted(keys, wanted, "right") - starts
        # Of a large band the rows around where this one would stand.
        whole, last = _keys(left, rows, band), len(keys) - 1
        stands = np.searchsorted(whole, _keys(right, others, band))
        is_large = sizes > MAX_ALL_PAIRS
        room = np.minimum(sizes, np.where(is_large, 2 * NUM_NEIGHBOURS, MAX_ALL_PAIRS))
        first = np.clip(stands - NUM_NEIGHBOURS, starts, starts + sizes - room)
        first = np.where(is_large, first, starts)
        for step in range(int(room.max(initial=0))):
            has = np.flatnonzero(step < room)
            yield rows[np.minimum(first[has] + step, last)], others[has]


def alike(first: Sketches, second: Sketches, left: Rows, right: Rows) -> NDArray[np.bool_]:
    """Of each pair, a row of `first` and one of `second`."""
    result = np.zeros(len(left), bool)
    for batch in _batches(len(left)):
        one, other = first[left[batch]], second[right[batch]]
        equal = num_equal(one, other)
        found = equal >= SURE_EQUAL
        asked = np.flatnonzero((equal >= MIN_EQUAL) & ~found)
        found[asked] = similarity(one[asked], other[asked]) >= MIN_SIMILARITY
        result[batch] = found
    return result


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

    def join(self, left: Rows, right: Rows) -> None:
        """Each row of one with that of the other."""
        while len(left):
            firsts = self.firsts(left), self.firsts(right)
            low, high = np.minimum(*firsts), np.maximum(*firsts)
            np.minimum.at(self._parents, high, low)
            # Of a group that was to join several, one has been taken.
            rest = low != high
            left, right = low[rest], high[rest]

    def members(self) -> tuple[Rows, int]:
        """(the rows in groups of two or more, in order; how many such groups there are)."""
        firsts = self.firsts(np.arange(len(self._parents)))
        sizes = np.bincount(firsts, minlength=len(firsts))
        return np.flatnonzero(sizes[firsts] > 1), int((sizes > 1).sum())


def near(sketches: Sketches, among: Rows) -> tuple[Rows, int]:
    """(those of the rows named that another one is almost the same as; how many groups of such)."""
    groups = Groups(len(sketches))
    join_near(groups, sketches, among)
    return groups.members()


def join_near(groups: Groups, sketches: Sketches, among: Rows) -> None:
    """Joins the rows, of those named, that are almost the same."""
    for left, right in pairs_within(sketches, among):
        apart = groups.firsts(left) != groups.firsts(right)
        left, right = left[apart], right[apart]
        same = alike(sketches, sketches, left, right)
        groups.join(left[same], right[same])


def copies(hashes: NDArray[Any]) -> tuple[Rows, int]:
    """(the rows with the hash of an earlier one; of how many they are copies)."""
    _, firsts, counts = np.unique(hashes, return_index=True, return_counts=True)
    is_copy = np.ones(len(hashes), bool)
    is_copy[firsts] = False
    return np.flatnonzero(is_copy), int((counts > 1).sum())
