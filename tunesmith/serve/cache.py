"""Keys and values of running sequences: one row each, kept together so that a step needs no gather.

The active rows are always the first ones. A row that ends is filled with another one, and the
storage doubles and shrinks in rows and in length as needed, so a batch is a view of it.

Shape suffixes as in `model/decoder.py`; a step computes B rows, T new positions each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith.model.decoder import AttentionRule, attend, seen
from tunesmith.model.families import DecoderConfig

MIN_LENGTH = 64
# Storage this many times larger than needed shrinks: one long row must not cost all others.
WASTEFUL = 4


class SlotCache:
    """Rows of one model. Room is made by `reserve` only; nothing else allocates."""

    def __init__(
        self, config: DecoderConfig, *, dtype: torch.dtype, device: torch.device, max_rows: int
    ) -> None:
        self.lengths: list[int] = []
        """Positions that each active row holds."""
        self._config = config
        self._dtype = dtype
        self._device = device
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
        shape = (room[0], self._config.num_kv_heads, room[1], self._config.head_dim)
        # Layer by layer, so that the old and the new storage never exist side by side.
        for layer in range(self._config.num_layers):
            # Zeros: a masked position weighs 0, but 0 times uninitialised memory may be NaN.
            keys, values = (
                torch.zeros(shape, dtype=self._dtype, device=self._device) for _ in range(2)
            )
            if layer == len(self._layers):
                self._layers.append((keys, values))
                continue
            rows, held = len(self.lengths), max(self.lengths, default=0)
            for old, new in zip(self._layers[layer], (keys, values), strict=True):
                new[:rows, :, :held] = old[:rows, :, :held]
            self._layers[layer] = (keys, values)
        self._num_rows, self._num_positions = room

    def add(self, copy_of: int | None = None, length: int = 0) -> int:
        """Starts a row, with the first `length` positions of another one; returns its number."""
        row = len(self.lengths)
        self.lengths.append(0)
        if copy_of is not None:
            self._copy(copy_of, row, length)
        return row

    def move(self, source: int, target: int) -> None:
        """Overwrites row `target` with row `source`."""
        if source != target:
            self._copy(source, target, self.lengths[source])

    def drop_last(self) -> None:
        """Ends the last row. Without rows the storage is given back."""
        self.lengths.pop()
        if not self.lengths:
            self._layers = []
            self._num_rows = self._num_positions = 0

    def view(self, start: int, num_new: Sequence[int]) -> RowsView:
        """Rows start, start + 1, ... for a step that adds `num_new` positions to each."""
        return RowsView(self, start, num_new)

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        return self._layers[layer]

    def _copy(self, source: int, target: int, length: int) -> None:
        for pair in self._layers:
            for tensor in pair:
                tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length

    def _room_for(self, num_rows: int, length: int, tight: bool) -> tuple[int, int]:
        if tight:
            return num_rows, -(-length // MIN_LENGTH) * MIN_LENGTH
        return (
            _room(self._num_rows, num_rows, self._max_rows),
            _room(self._num_positions, max(length, MIN_LENGTH), self._config.max_positions),
        )

    def _bytes(self, num_rows: int, num_positions: int) -> int:
        c = self._config
        per_position = 2 * c.num_layers * c.num_kv_heads * c.head_dim * self._dtype.itemsize
        return num_rows * num_positions * per_position


class RowsView:
    """The decoder's `Attention` for one step over neighbouring rows of a `SlotCache`.

    Rows may differ in length when T is 1. Where T is more, all have the same length, and those
    with fewer new positions are padded on the right; the padding is overwritten by what follows.
    """

    def __init__(self, cache: SlotCache, start: int, num_new: Sequence[int]) -> None:
        self._cache = cache
        self._rows = slice(start, start + len(num_new))
        self._num_new = num_new
        held = cache.lengths[self._rows]
        self._uniform = len(set(held)) == 1
        self._first = held[0]
        T = max(num_new)
        assert self._uniform or T == 1, "rows of different lengths take one position at a time"
        self._num_attended = max(held) + T
        device = cache._device
        held_B1 = torch.tensor(held, device=device)[:, None]
        self.positions_BT = held_B1 + torch.arange(T, device=device)
        self._is_plain = self._first == 0 and self._uniform
        self._masks: dict[AttentionRule, Tensor] = {}
        self._rows_B = torch.arange(start, start + len(held), device=device)

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        k_BKSD, v_BKSD = self._extend(layer, k_BTKD, v_BTKD)
        return attend(q_BTHD, k_BKSD, v_BKSD, self._mask(rule), rule)

    def _extend(self, layer: int, k_BTKD: Tensor, v_BTKD: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new positions; returns keys and values of all (B, K, S, D)."""
        k, v = self._cache.storage(layer)
        for storage, new in ((k, k_BTKD), (v, v_BTKD)):
            if self._uniform:
                storage[self._rows, :, self._first : self._num_attended] = new.transpose(1, 2)
            else:
                storage[self._rows_B, :, self.positions_BT[:, 0]] = new[:, 0]
        held = slice(0, self._num_attended)
        return k[self._rows, :, held], v[self._rows, :, held]

    def _mask(self, rule: AttentionRule) -> Tensor | None:
        """None where causal attention over the new positions is all there is."""
        if self._is_plain and (rule.window is None or rule.window >= self._num_attended):
            return None
        if rule not in self._masks:
            self._masks[rule] = seen(self.positions_BT, self._num_attended, rule)
        return self._masks[rule]

    def advance(self) -> None:
        """Counts the new positions as held, once the step has been computed."""
        for row, num_new in zip(
            range(self._rows.start, self._rows.stop), self._num_new, strict=True
        ):
            self._cache.lengths[row] += num_new


def _room(current: int, needed: int, most: int) -> int:
    """The next power of two, or what there is while that is enough and not wasteful."""
    room = max(needed, min(1 << (needed - 1).bit_length(), most))
    return current if needed <= current <= WASTEFUL * room else room
