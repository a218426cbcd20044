"""What is kept of a text to tell whether another one is almost the same.

Of the set of its 5-byte shingles 64 minima (MinHash): of each of 64 permutations of all hashes the
smallest, 8 bits of it. As many as two texts have in common tell how alike they are to +-0.06.

Of its words 512 bits: each word turns one over, a word that is there again another one. Bits that
differ between two texts count the words that only one of them has, so the share of words that both
have is known: of short texts exactly, of others to +-0.01. Of more than 512 words a sample is
taken, by their hashes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

NUM_PERMUTATIONS = 64
SHINGLE_BYTES = 5
MIN_CHARS = 24
"""Shorter texts are too alike by nature."""
NUM_BITS = MAX_WORDS = 512
DOUBT = 1 / 8
"""Two standard deviations of the number of words that the differing bits of long texts tell."""
BATCH_BYTES = 1 << 16
MAX_BYTES = 1 << 16
"""Of a longer text, as much of its beginning and of its end as this together is compared."""

SKETCH = np.dtype(
    [("minima", np.uint8, NUM_PERMUTATIONS), ("bits", np.uint64, NUM_BITS // 64), ("words", "u4")]
)
"""One text's, 132 bytes; all minima are 0 for a text that is too short to compare."""
Sketches = NDArray[Any]
"""(texts,) of SKETCH."""
Hashes = NDArray[np.uint32]
Rows = NDArray[np.int64]

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
# Of a word's hash the upper bits choose its bit, the lower ones whether it is in the sample.
_SAMPLE_BITS = 32 - (NUM_BITS - 1).bit_length()


def _differences() -> NDArray[np.float64]:
    """By how many bits differ, how many words do at least: some turn a bit back, at random."""
    num_bits = np.arange(NUM_BITS + 1)
    likely = -NUM_BITS / 2 * np.log(1 - np.minimum(2 * num_bits / NUM_BITS, 1 - 1e-9))
    return np.asarray(np.maximum(num_bits, likely * (1 - DOUBT)))


_DIFFERENCES = _differences()


def sketch(texts: Sequence[str]) -> Sketches:
    """A row for each text."""
    result = np.zeros(len(texts), SKETCH)
    places: list[int] = []
    batch: list[bytes] = []
    words: list[Hashes] = []
    size = 0
    for place, text in enumerate(texts):
        if len(text) >= MIN_CHARS:
            data, hashes = _read(text)
            places.append(place)
            batch.append(data)
            words.append(hashes)
            size += len(data)
        if size >= BATCH_BYTES:
            result[places] = _sketch_batch(batch, words)
            places, batch, words, size = [], [], [], 0
    if batch:
        result[places] = _sketch_batch(batch, words)
    return result


def _read(text: str) -> tuple[bytes, Hashes]:
    """(what is compared of a text, a hash of each of its words)."""
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        data = data[: MAX_BYTES // 2] + data[-MAX_BYTES // 2 :]
    if text.isascii():
        words = data.split()
    else:
        if len(text) > MAX_BYTES:
            text = f"{text[: MAX_BYTES // 2]} {text[-MAX_BYTES // 2 :]}"
        words = [word.encode("utf-8", "replace") for word in WORD.findall(text)]
    return data, np.fromiter(map(crc32, words), np.uint32, len(words))


def _sketch_batch(batch: list[bytes], words: list[Hashes]) -> Sketches:
    result = np.zeros(len(batch), SKETCH)
    result["minima"] = _minima(batch)
    result["words"] = [len(hashes) for hashes in words]
    result["bits"] = _bits(words, result["words"])
    return result


def _minima(batch: list[bytes]) -> NDArray[np.uint8]:
    shingles = [_shingles(data) for data in batch]
    joined = np.concatenate(shingles)
    starts = np.cumsum([0, *(len(hashes) for hashes in shingles[:-1])])
    product = np.empty_like(joined)
    least = np.empty((len(batch), NUM_PERMUTATIONS), np.uint32)
    for number, multiplier in enumerate(_MULTIPLIERS):
        np.multiply(joined, multiplier, out=product)
        np.minimum.reduceat(product, starts, out=least[:, number])
    least ^= least >> np.uint32(15)
    least *= _MIX
    return np.asarray(np.maximum(least >> np.uint32(24), 1), np.uint8)


def _shingles(raw: bytes) -> Hashes:
    """A hash of each 5 bytes."""
    data = np.frombuffer(raw, np.uint8).astype(np.uint32)
    count = len(data) - SHINGLE_BYTES + 1
    result = data[:count].copy()
    for place in range(1, SHINGLE_BYTES):
        result *= np.uint32(0x01000193)
        result ^= data[place : count + place]
    return _mixed(result)


def _mixed(hashes: Hashes) -> Hashes:
    hashes ^= hashes >> np.uint32(15)
    hashes *= _MIX
    hashes ^= hashes >> np.uint32(13)
    return hashes


def _bits(words: list[Hashes], sizes: Hashes) -> NDArray[np.uint64]:
    """(texts, NUM_BITS / 64)."""
    owners = np.repeat(np.arange(len(words), dtype=np.uint64), sizes)
    ordered = np.concatenate(words) | owners << np.uint64(32)
    ordered.sort()
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    number = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    hashes = _mixed(_mixed(ordered.astype(np.uint32) + number.astype(np.uint32) * _MIX))
    sampled = (
        hashes & np.uint32((1 << _SAMPLE_BITS) - 1) < (_rates(sizes) * (1 << _SAMPLE_BITS))[owners]
    )
    turned = owners[sampled] * NUM_BITS + (hashes[sampled] >> np.uint32(_SAMPLE_BITS))
    counts = np.bincount(turned.astype(np.int64), minlength=len(words) * NUM_BITS)
    return np.packbits(counts.astype(np.uint8) & 1).view(np.uint64).reshape(len(words), -1)


def _rates(sizes: Hashes) -> NDArray[np.float64]:
    """The share of a text's words that is in the sample."""
    return np.minimum(1, MAX_WORDS / np.maximum(sizes, 1))


def num_equal(one: Sketches, other: Sketches) -> NDArray[np.int64]:
    """Of each pair of texts, how many minima are equal."""
    return np.asarray((one["minima"] == other["minima"]).sum(axis=1))


def similarity(one: Sketches, other: Sketches) -> NDArray[np.float64]:
    """Of each pair of texts, the share of words that both have (Dice): of short texts exactly, of
    others rather 0.03 too much than too little."""
    differ = np.bitwise_count(one["bits"] ^ other["bits"]).sum(axis=1)
    num_words = np.stack([one["words"], other["words"]])
    sampled = np.minimum(num_words, MAX_WORDS).sum(axis=0)
    rate = _rates(num_words).min(axis=0)
    # Of words that both have, the sample of the shorter text has those that the other's has, and
    # more of them: these differ, too.
    shared = (sampled - _DIFFERENCES[differ]) / (2 * rate)
    return np.asarray(2 * shared / np.maximum(num_words.sum(axis=0), 1))
