"""Keys and values of running sequences: one row each, kept together so that a step needs no gather.

The active rows are always the first ones. A row that ends is filled with another one, and the
storage doubles and shrinks in rows and in length as needed, so a batch is a view of it.

Shape suffixes as in `model/decoder.py`; N is all new positions of a pass.
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
        for pair in self._layers:
            for kind in pair:
                kind[target, :, :length] = kind[source, :, :length]

    def drop_last(self) -> None:
        """Ends the last row. Without rows the storage is given back."""
        self.lengths.pop()
        if not self.lengths:
            self._layers = []
            self._num_rows = self._num_positions = 0

    def view(self, num_new: Sequence[int]) -> RowsView:
        """For a pass that adds so many positions to each row; 0 leaves a row alone."""
        return RowsView(self, num_new)

    @property
    def position_bytes(self) -> int:
        """Memory of one position of a row."""
        return self._bytes(1, 1)

    def read(self, row: int, start: int, stop: int) -> Tensor:
        """Keys and values of a row's positions, (2 x layers, K, positions, D): a copy."""
        return torch.stack([kind[row, :, start:stop] for pair in self._layers for kind in pair])

    def write(self, row: int, content: Tensor) -> None:
        """Makes what `read` gave the beginning of an empty row."""
        self.lengths[row] = length = content.shape[2]
        kinds = [kind for pair in self._layers for kind in pair]
        for kind, content_KSD in zip(kinds, content, strict=True):
            kind[row, :, :length] = content_KSD

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        return self._layers[layer]

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
    """The decoder's `Attention` for one pass over a `SlotCache`, rows one after the other.

    The pass computes N positions: those that are new in each row, in the order of the rows. Rows
    with one new position are attended to together where they are neighbours, others by themselves,
    so that a piece of a prompt is computed as it would be alone.
    """

    def __init__(self, cache: SlotCache, num_new: Sequence[int]) -> None:
        self._cache = cache
        self._num_new = num_new
        device = cache._device
        self.lasts: list[int] = []
        """Which of the N is the last of each row that has new ones."""
        self._parts: list[_Part] = []
        positions: list[int] = []
        for rows in _neighbours(num_new):
            first = len(positions)
            for row in rows:
                held = cache.lengths[row]
                positions.extend(range(held, held + num_new[row]))
                self.lasts.append(len(positions) - 1)
            self._parts.append(_Part(cache, rows, slice(first, len(positions)), device))
        positions_N = torch.tensor(positions, device=device)
        # A single text as a row of its own: there its length shows (see `Rotation`).
        is_single = len(self.lasts) == 1
        self.positions_BT = positions_N[None] if is_single else positions_N[:, None]

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        q_NHD, k_NKD, v_NKD = (x.flatten(0, 1) for x in (q_BTHD, k_BTKD, v_BTKD))
        out = [part.attend(layer, q_NHD, k_NKD, v_NKD, rule) for part in self._parts]
        return (out[0] if len(out) == 1 else torch.cat(out)).view(q_BTHD.shape)

    def advance(self) -> None:
        """Counts the new positions as held, once the pass has been computed."""
        for row, num_new in enumerate(self._num_new):
            self._cache.lengths[row] += num_new


class _Part:
    """Neighbouring rows with one new position each, or one row with any number."""

    def __init__(self, cache: SlotCache, rows: range, places: slice, device: torch.device) -> None:
        self._cache = cache
        self._rows = slice(rows.start, rows.stop)
        self._places = places
        self._shape = len(rows), (places.stop - places.start) // len(rows)
        held = cache.lengths[self._rows]
        self._held = held[0]
        self._is_uniform = len(set(held)) == 1
        self._is_plain = held == [0]
        self._num_attended = max(held) + self._shape[1]
        held_B1 = torch.tensor(held, device=device)[:, None]
        self._positions_BT = held_B1 + torch.arange(self._shape[1], device=device)
        self._rows_B = torch.arange(rows.start, rows.stop, device=device)
        self._masks: dict[AttentionRule, Tensor] = {}

    def attend(
        self, layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        """What the part's positions read, (positions, H, D)."""
        q_BTHD, k_BTKD, v_BTKD = (
            x[self._places].view(*self._shape, *x.shape[1:]) for x in (q_NHD, k_NKD, v_NKD)
        )
        keys, values = self._cache.storage(layer)
        for storage, new in ((keys, k_BTKD), (values, v_BTKD)):
            if self._is_uniform:
                storage[self._rows, :, self._held : self._num_attended] = new.transpose(1, 2)
            else:
                storage[self._rows_B, :, self._positions_BT[:, 0]] = new[:, 0]
        held = slice(0, self._num_attended)
        k_BKSD, v_BKSD = keys[self._rows, :, held], values[self._rows, :, held]
        return attend(q_BTHD, k_BKSD, v_BKSD, self._mask(rule), rule).flatten(0, 1)

    def _mask(self, rule: AttentionRule) -> Tensor | None:
        """None where all that is stored is seen, or causal attention is all there is."""
        everything = self._is_plain or (self._is_uniform and self._shape[1] == 1)
        if everything and (rule.window is None or rule.window >= self._num_attended):
            return None
        if rule not in self._masks:
            mask = seen(self._positions_BT, self._num_attended, rule)
            if rule.softcap is None:
                # What is added to the scores: attention would make it anew in each layer.
                mask = torch.where(mask, 0.0, -torch.inf).to(self._cache._dtype)
            self._masks[rule] = mask
        return self._masks[rule]


def _neighbours(num_new: Sequence[int]) -> list[range]:
    """The rows of a pass: neighbours with one new position together, others alone."""
    parts: list[range] = []
    for row, number in enumerate(num_new):
        if number == 1 and parts and parts[-1].stop == row and num_new[row - 1] == 1:
            parts[-1] = range(parts[-1].start, row + 1)
        elif number:
            parts.append(range(row, row + 1))
    return parts


def _room(current: int, needed: int, most: int) -> int:
    """The next power of two, or what there is while that is enough and not wasteful."""
    room = max(needed, min(1 << (needed - 1).bit_length(), most))
    return current if needed <= current <= WASTEFUL * room else room
