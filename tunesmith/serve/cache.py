"""Keys and values of running sequences: one row each, kept together so that a step needs no gather.

The active rows are always the first ones. A row that ends is filled with another one, and the
storage doubles and shrinks in rows and in length as needed, so a batch is a view of it.

Shape suffixes as in `model/decoder.py`; N is all new positions of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL

import torch
from torch import Tensor

from tunesmith.model import native
from tunesmith.model.attention import (
    Attend,
    AttentionRule,
    attend_steadily,
    attend_stored,
)
from tunesmith.model.families import DecoderConfig
from tunesmith.model.packed import packs_for
from tunesmith.model.stored import parts_of

MIN_LENGTH = 64
# Storage this many times larger than needed shrinks: one long row must not cost all others.
WASTEFUL = 4


class SlotCache:
    """Rows of one model. Room is made by `reserve` only; nothing else allocates."""

    def __init__(
        self,
        config: DecoderConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        max_rows: int,
        attend: Attend = attend_stored,
        compiled: CDLL | None = None,
    ) -> None:
        self.lengths: list[int] = []
        """Positions that each active row holds."""
        self.config = config
        self.dtype = dtype
        self.device = device
        self.attend = attend
        self.is_steady = attend is attend_steadily
        self.compiled = compiled if compiled and native.readable(compiled, config) else None
        self.packs = packs_for(config, device, dtype)
        self._max_rows = max_rows
        self._num_rows = 0  # room, used or not
        self._num_positions = 0
        self._layers: list[tuple[Tensor, Tensor]] = []

    @property
    def num_bytes(self) -> int:
        return self._bytes(self._num_rows, self._num_positions)

    def bytes_for(self, num_rows: int, length: int, *, tight: bool = False) -> int:
        """Size of the storage after `reserve` with the same arguments."""
        return self._bytes(*self._room_for(num_rows, length, tight))

    def reserve(self, num_rows: int, length: int, *, tight: bool = False) -> None:
        """Makes room for `num_rows` rows in all, the longest of `length`; keeps the content.

        Room to grow is added, and room far beyond the need given back; `tight` adds none.
        """
        room = self._room_for(num_rows, length, tight)
        if room == (self._num_rows, self._num_positions):
            return
        heads = self.config.num_kv_heads
        shape = (room[0] * heads, room[1], self.config.head_dim)
        # Layer by layer, so that the old and the new storage never exist side by side.
        for layer in range(self.config.num_layers):
            # Zeros: a masked position weighs 0, but 0 times uninitialised memory may be NaN.
            keys, values = (
                torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2)
            )
            if layer == len(self._layers):
                self._layers.append((keys, values))
                continue
            rows, held = len(self.lengths) * heads, max(self.lengths, default=0)
            for old, new in zip(self._layers[layer], (keys, values), strict=True):
                new[:rows, :held] = old[:rows, :held]
            self._layers[layer] = (keys, values)
        self._num_rows, self._num_positions = room

    def add(self, copy_of: int | None = None) -> int:
        """Starts a row, empty or as another one; returns its number."""
        self.lengths.append(0)
        if copy_of is not None:
            self.move(copy_of, len(self.lengths) - 1)
        return len(self.lengths) - 1

    def move(self, source: int, target: int) -> None:
        """Overwrites row `target` with row `source`."""
        if source == target:
            return
        self.lengths[target] = length = self.lengths[source]
        old, new = self._heads(source), self._heads(target)
        for pair in self._layers:
            for kind in pair:
                kind[new, :length] = kind[old, :length]

    def drop_last(self) -> None:
        """Ends the last row. Without rows the storage is given back."""
        self.lengths.pop()
        if not self.lengths:
            self._layers = []
            self._num_rows = self._num_positions = 0

    @property
    def position_bytes(self) -> int:
        """Memory of one position of a row."""
        return self._bytes(1, 1)

    def read(self, row: int, start: int, stop: int) -> Tensor:
        """Keys and values of a row's positions, (2 x layers, K, positions, D): a copy."""
        heads = self._heads(row)
        return torch.stack([kind[heads, start:stop] for pair in self._layers for kind in pair])

    def write(self, row: int, content: Tensor) -> None:
        """Makes what `read` gave the beginning of an empty row."""
        self.lengths[row] = length = content.shape[2]
        kinds = [kind for pair in self._layers for kind in pair]
        for kind, content_KSD in zip(kinds, content, strict=True):
            kind[self._heads(row), :length] = content_KSD

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values, (rows x K, positions, D) each: a row's heads one after the other."""
        return self._layers[layer]

    def _heads(self, row: int) -> slice:
        num = self.config.num_kv_heads
        return slice(row * num, (row + 1) * num)

    def _room_for(self, num_rows: int, length: int, tight: bool) -> tuple[int, int]:
        if tight:
            return num_rows, _whole(length)
        return (
            _room(self._num_rows, num_rows, self._max_rows),
            _room(self._num_positions, _whole(length), _whole(self.config.max_positions)),
        )

    def _bytes(self, num_rows: int, num_positions: int) -> int:
        c = self.config
        per_position = 2 * c.num_layers * c.num_kv_heads * c.head_dim * self.dtype.itemsize
        return num_rows * num_positions * per_position


class RowsView:
    """The decoder's `Attention` for one pass over a `SlotCache`, rows one after the other.

    The pass computes N positions: those that are new in each row, in the order of the rows. Rows
    with one new position are attended to together where they are neighbours, others by themselves,
    so that a piece of a prompt is computed as it would be alone. A single position is computed
    twice: the bits of a product of one row are others than those of several.
    """

    def __init__(self, cache: SlotCache, num_new: Sequence[int]) -> None:
        self._cache = cache
        self._num_new = num_new
        self.lasts: list[int] = []
        """Which of the N is the last of each row that has new ones."""
        self._parts = parts_of(cache, num_new) if cache.compiled is None else []
        positions: list[int] = []
        for held, number in zip(cache.lengths, num_new, strict=True):
            positions.extend(range(held, held + number))
            self.lasts.extend([len(positions) - 1] if number else [])
        self.reading: native.Reading | None = None
        if cache.compiled is not None:
            in_rows = [row for row, number in enumerate(num_new) for _ in range(number)]
            self.reading = native.Reading(cache.compiled, in_rows, positions)
        num = len(positions)
        positions_N = torch.tensor(positions * (2 if num == 1 else 1), device=cache.device)
        # A single text as a row of its own: there its length shows (see `Rotation`).
        self.positions = positions_N[None] if len(self.lasts) == 1 < num else positions_N
        """(N,), or (1, N) of a single text; what the decoder is given and gives has this shape."""

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        q, k, v = q_BTHD, k_BTKD, v_BTKD
        if q.dim() == 4:
            return self(layer, q[0], k[0], v[0], rule)[None]
        if self.reading is not None:
            return self.reading(q, k, v, *self.storage(layer), rule).expand(q.shape)
        if len(self._parts) == 1 and len(q) == len(self._parts[0]):
            return self._parts[0](layer, q, k, v, rule)
        out = [
            part(layer, q[part.places], k[part.places], v[part.places], rule)
            for part in self._parts
        ]
        return torch.cat(out) if len(out) > 1 else out[0].expand(q.shape)

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        return self._cache.storage(layer)

    def advance(self) -> None:
        """Counts the new positions as held, once the pass has been computed."""
        for row, num_new in enumerate(self._num_new):
            self._cache.lengths[row] += num_new


def _whole(length: int) -> int:
    return max(-(-length // MIN_LENGTH), 1) * MIN_LENGTH


def _room(current: int, needed: int, most: int) -> int:
    """The next power of two, or what there is while that is enough and not wasteful."""
    room = max(needed, min(1 << (needed - 1).bit_length(), most))
    return current if needed <= current <= WASTEFUL * room else room
