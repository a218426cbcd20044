"""Which examples a step sees, and the tensors they become.

The order is a pure function of the seed: every epoch is a permutation of the rows, the
permutations are strung together, and step s (from 1) takes rows [(s-1)*B, s*B) of that string. A
resumed job therefore needs no loader state, only the number of its step.

Shape suffixes: T positions of a row, N supervised positions, S sequences.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.render import Example
from tunesmith.errors import JobError
from tunesmith.train.shared import Shared, find_shared


class Corpus:
    """Rendered rows, packed: a row is one sequence, or several where the template rewrites history.

    A sequence ends with its last supervised token.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        ids, weights = array("i"), array("f")
        self._starts = [0]
        self._row_starts: list[int] = []
        self._row_tokens: list[int] = []
        self._row_weights: list[float] = []
        self._row_supervised: list[int] = []
        number = None
        for example in examples:
            if example.number != number:
                number = example.number
                self._row_starts.append(len(self._starts) - 1)
                self._row_tokens.append(0)
                self._row_weights.append(0.0)
                self._row_supervised.append(0)
            self._row_tokens[-1] += example.num_counted
            self._row_weights[-1] += sum(example.weights)
            self._row_supervised[-1] += sum(weight > 0 for weight in example.weights)
            ids.extend(example.ids)
            weights.extend(example.weights)
            self._starts.append(len(ids))
        self._row_starts.append(len(self._starts) - 1)
        self._ids = torch.frombuffer(ids, dtype=torch.int32) if ids else torch.empty(0)
        self._weights = torch.frombuffer(weights, dtype=torch.float32) if ids else torch.empty(0)

    @property
    def num_rows(self) -> int:
        return len(self._row_tokens)

    @property
    def num_sequences(self) -> int:
        return len(self._starts) - 1

    def num_tokens(self, rows: Iterable[int]) -> int:
        """Tokens of these rows as rendered; the prompt of a pair counts once."""
        return sum(self._row_tokens[row] for row in rows)

    def typical(self, num: int) -> list[int]:
        """So many rows with something to learn, or all of them: of all lengths, as long in the mean
        as the rest."""
        rows = [row for row in range(self.num_rows) if self.weight(row) > 0]
        rows.sort(key=self._row_tokens.__getitem__)
        lengths = [self._row_tokens[row] for row in rows]
        parts = pairwise(place * len(rows) // num for place in range(num + 1))
        means = [(sum(lengths[a:b]) / (b - a), a, b) for a, b in parts if a < b]
        return [rows[bisect_left(lengths, *each)] for each in means]

    def total_weight(self, rows: Iterable[int]) -> float:
        """The denominator of the rows' loss. Raises JobError where it is zero."""
        total = sum(self.weight(row) for row in rows)
        if total <= 0:
            raise JobError("A step has no token to learn from.", code="nothing_supervised")
        return total

    def weight(self, row: int) -> float:
        """Sum of the weights of a row's tokens."""
        return self._row_weights[row]

    def num_supervised(self, rows: Iterable[int]) -> int:
        return sum(self._row_supervised[row] for row in rows)

    def length(self, sequence: int) -> int:
        """Positions the model computes: all tokens but the last, which is only a target."""
        return self._starts[sequence + 1] - self._starts[sequence] - 1

    def size(self, sequences: Iterable[int]) -> int:
        """Positions of these sequences together."""
        return sum(map(self.length, sequences))

    def sequences(self, rows: Iterable[int]) -> list[int]:
        return [
            sequence
            for row in rows
            for sequence in range(self._row_starts[row], self._row_starts[row + 1])
        ]

    def answer_ends(self) -> set[int]:
        """The last ids of all supervised spans."""
        is_supervised = self._weights > 0
        is_end = is_supervised.clone()
        # A sequence's first token is never supervised, so spans do not run into the next one.
        is_end[:-1] &= ~is_supervised[1:]
        return set(self._ids[is_end].tolist())

    def num_answer_tokens(self, sequence: int) -> int:
        """Supervised tokens of a sequence."""
        return int((self.tokens(sequence)[1] > 0).sum())

    def differs(self, pair: int) -> bool:
        """Whether the row's two answers are not the same."""
        one, other = (self.tokens(sequence)[0] for sequence in self.sequences([pair]))
        return not torch.equal(one, other)

    def digest(self) -> str:
        """sha256 over ids, weights and where sequences begin."""
        digest = hashlib.sha256(repr(self._starts).encode())
        for values in (self._ids, self._weights):
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    def tokens(self, sequence: int) -> tuple[Tensor, Tensor]:
        """Ids and weights (T+1) of a sequence; weights[i] weighs the loss of predicting ids[i]."""
        span = slice(self._starts[sequence], self._starts[sequence + 1])
        return self._ids[span], self._weights[span]


@dataclass(frozen=True)
class MicroBatch:
    """Whole sequences in one row, one after the other: no position is computed for nothing.

    Attention must keep them apart, see attention.py.
    """

    ids_1T: Tensor
    positions_1T: Tensor
    """They count from 0 in each sequence."""
    lengths: tuple[int, ...]
    """Of the sequences, the longest first."""
    sequences: tuple[int, ...]
    """Their numbers in the corpus."""
    counts_S: Tensor
    """How many supervised positions each has."""
    index_N: Tensor
    """Positions of the row whose next token is supervised, in the order of the sequences."""
    targets_N: Tensor
    weights_N: Tensor
    shared: Shared | None = None

    def to(self, device: torch.device) -> MicroBatch:
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved, shared=self.shared and self.shared.to(device))


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_rows: int) -> list[int]:
    """A permutation of the rows; `random.random` is the part of Python's that never changes."""
    generator = random.Random(f"tunesmith/{seed}/{epoch}")
    keys = [generator.random() for _ in range(num_rows)]
    return sorted(range(num_rows), key=keys.__getitem__)


@dataclass(frozen=True)
class Order:
    """The walk of a job through its rows. Steps count from 1, epochs too."""

    seed: int
    num_rows: int
    batch_size: int
    num_epochs: int

    @property
    def total_steps(self) -> int:
        return self._step_of(self.num_epochs)

    def rows(self, step: int) -> list[int]:
        first = (step - 1) * self.batch_size
        last = min(first + self.batch_size, self.num_rows * self.num_epochs)
        return [
            epoch_order(self.seed, at // self.num_rows, self.num_rows)[at % self.num_rows]
            for at in range(first, last)
        ]

    def epoch_ended_by(self, step: int) -> int | None:
        """The epoch whose last row is in this step; the later one where two end in it."""
        epoch = min(step * self.batch_size // self.num_rows, self.num_epochs)
        return epoch if epoch > 0 and self._step_of(epoch) == step else None

    def epoch_of(self, step: int) -> int:
        """The epoch that ends with a step, or else the one that is under way."""
        return self.epoch_ended_by(step) or step * self.batch_size // self.num_rows + 1

    def _step_of(self, epoch: int) -> int:
        return -(-epoch * self.num_rows // self.batch_size)


def longest_first(corpus: Corpus, units: Iterable[Sequence[int]]) -> list[Sequence[int]]:
    """Units of sequences by the positions they take."""
    return sorted(units, key=corpus.size, reverse=True)


def micro_batches(
    corpus: Corpus, units: Iterable[Sequence[int]], max_tokens: int, *, share: bool = False
) -> Iterator[MicroBatch]:
    """The sequences of the units in rows of at most `max_tokens`; a unit stays in one row.

    With the longest units first a step that does not fit into memory fails at once, and neighbours
    are of like length. A unit longer than the budget has a row of its own.
    """
    group: list[int] = []
    room = max_tokens
    for unit in units:
        num_tokens = corpus.size(unit)
        if group and num_tokens > room:
            yield pack(corpus, group, share=share)
            group, room = [], max_tokens
        group += unit
        room -= num_tokens
    if group:
        yield pack(corpus, group, share=share)


def one_sequence(length: int, vocab_size: int) -> MicroBatch:
    """Made-up ids, all of them supervised, to try a model with."""
    ids = [place % vocab_size for place in range(length + 1)]
    return pack(Corpus([Example(ids, [0.0] + [1.0] * length, 1)]), [0])


def pack(corpus: Corpus, sequences: Iterable[int], *, share: bool = False) -> MicroBatch:
    """The sequences as one row, the longest first; with `share` equal beginnings once."""
    ordered = sorted(sequences, key=corpus.length, reverse=True)
    parts = [corpus.tokens(sequence) for sequence in ordered]
    weights_T = torch.cat([weights[1:] for _, weights in parts])
    index_N = weights_T.nonzero()[:, 0]
    whole = MicroBatch(
        ids_1T=torch.cat([ids[:-1] for ids, _ in parts]).long()[None],
        positions_1T=torch.cat([torch.arange(len(ids) - 1) for ids, _ in parts])[None],
        lengths=tuple(len(ids) - 1 for ids, _ in parts),
        sequences=tuple(ordered),
        counts_S=torch.stack([(weights[1:] != 0).sum() for _, weights in parts]),
        index_N=index_N,
        targets_N=torch.cat([ids[1:] for ids, _ in parts]).long()[index_N],
        weights_N=weights_T[index_N],
    )
    shared = find_shared([ids[:-1] for ids, _ in parts]) if share else None
    if shared is None:
        return whole
    return replace(
        whole,
        ids_1T=whole.ids_1T[:, shared.firsts_T],
        positions_1T=whole.positions_1T[:, shared.firsts_T],
        index_N=shared.places_P[index_N],
        shared=shared,
    )
