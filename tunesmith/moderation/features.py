"""Texts as hashed features: words, pairs of words, and pieces of words of 3 to 5 characters.

All texts of a call are joined and hashed at once by numpy, without a loop over words. The hash is
part of the weights' format: a change here means training them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

NUM_BUCKETS = 1 << 17
PIECE_CHARS = (3, 4, 5)
# Later characters of a word do not tell it from others.
MAX_WORD_CHARS = 32

Ids = NDArray[np.int64]

SPACE = 32


def _mixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Numbers that follow one another become numbers without order."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        values = (values ^ (values >> np.uint32(shift))) * np.uint32(factor)
    return values ^ (values >> np.uint32(16))


# A number for each character at each place of a word; a word's hash is their sum.
_PLACES = _mixed(np.arange(1, MAX_WORD_CHARS * 256 + 1, dtype=np.uint32)).reshape(-1, 256)


def _table() -> bytes:
    """What each byte becomes: letters stay, digits are one, the rest is a space."""
    table = bytearray(b" " * 256)
    for byte in (*range(ord("a"), ord("z") + 1), *range(128, 256)):
        table[byte] = byte
    for byte in range(ord("0"), ord("9") + 1):
        table[byte] = ord("0")
    return bytes(table)


_TABLE = _table()


def normal(text: str) -> bytes:
    """The text as it is hashed: lower case, no apostrophes, words between single bytes."""
    return text.lower().encode("utf-8", "ignore").translate(_TABLE, b"'")


def features(texts: Sequence[str]) -> Iterator[tuple[Ids, Ids]]:
    """For each kind of feature (text_F, bucket_F): which text has which; ordered by text."""
    plain = [normal(text) for text in texts]
    chars = np.frombuffer(b" ".join([b"", *plain, b""]), np.uint8)
    text_of = np.repeat(np.arange(len(plain)), [len(text) + 1 for text in plain])
    # A character's text; the space before a text belongs to it, the last one to none.
    text_of = np.append(text_of, len(texts))
    is_space = chars == SPACE
    yield from _words(chars, is_space, text_of)
    for num_chars in PIECE_CHARS:
        yield _pieces(chars, is_space, text_of, num_chars)


def _words(
    chars: NDArray[np.uint8], is_space: NDArray[np.bool_], text_of: Ids
) -> Iterator[tuple[Ids, Ids]]:
    starts = np.flatnonzero(~is_space[1:] & is_space[:-1]) + 1
    if not len(starts):
        return
    place = np.arange(len(chars)) - np.repeat(
        np.concatenate([[0], starts]), np.diff(np.concatenate([[0], starts, [len(chars)]]))
    )
    counted = ~is_space & (place < MAX_WORD_CHARS)
    hashes = np.where(counted, _PLACES[np.minimum(place, MAX_WORD_CHARS - 1), chars], np.uint32(0))
    words = np.add.reduceat(hashes, starts, dtype=np.uint32)
    texts = text_of[starts]
    yield texts, _buckets(words)
    same = texts[1:] == texts[:-1]
    pairs = words[:-1] * np.uint32(31) + words[1:] * np.uint32(1000003)
    yield texts[1:][same], _buckets(pairs[same])


def _pieces(
    chars: NDArray[np.uint8], is_space: NDArray[np.bool_], text_of: Ids, num_chars: int
) -> tuple[Ids, Ids]:
    """Pieces of words; one at an edge holds the space beside it."""
    num = len(chars) - num_chars + 1
    if num <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    hashes = np.full(num, num_chars, np.uint32)
    inner = np.zeros(num, np.bool_)
    for at in range(num_chars):
        hashes = hashes * np.uint32(0x01000193) + chars[at : at + num]
        if 0 < at < num_chars - 1:
            inner |= is_space[at : at + num]
    places = np.flatnonzero(~inner)
    return text_of[places + 1], _buckets(hashes[places])


def _buckets(hashes: NDArray[np.uint32]) -> Ids:
    return (_mixed(hashes) % np.uint32(NUM_BUCKETS)).astype(np.int64)
