"""What new positions of a pass read of stored keys and values where torch computes it, in parts.

Rows with one new position are read together where they are neighbours. Of several, a row is a part
by itself, so that a piece of a prompt is computed as it would be alone; on a GPU prompts that begin
are one part, by torch's operator for sequences of different length.

Shape suffixes as in `decoder.py`; P new positions of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tunesmith.model.attention import Attend, AttentionRule, seen, steady_length, steady_mask
from tunesmith.model.families import DecoderConfig
from tunesmith.model.packed import Packs

# New positions of a row that are attended to together, where their number changes no bits.
PIECE = 64


class StoredRows(Protocol):
    """Rows with keys and values: a `SlotCache`."""

    lengths: list[int]
    config: DecoderConfig
    dtype: torch.dtype
    device: torch.device
    attend: Attend
    is_steady: bool
    packs: Packs | None
    """What computes whole sequences one behind the other, if anything does."""

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values, (rows x K, positions, D) each."""
        ...


class ReadPart(Protocol):
    """Some of a pass's positions, which lie at `places`."""

    places: slice

    def __len__(self) -> int: ...

    def __call__(
        self, layer: int, q_PHD: Tensor, k_PKD: Tensor, v_PKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        """What they read, (P, H, D), once their own keys and values are stored."""
        ...


def parts_of(cache: StoredRows, num_new: Sequence[int]) -> list[ReadPart]:
    """The parts of a pass that gives each row so many new positions, in their order."""
    parts: list[ReadPart] = []
    first = 0
    for rows in _neighbours(cache, num_new):
        places = slice(first, first + sum(num_new[rows.start : rows.stop]))
        first = places.stop
        if num_new[rows.start] > 1 and cache.packs and not cache.lengths[rows.start]:
            parts.append(Beginnings(cache, rows, num_new[rows.start : rows.stop], places))
        else:
            parts.append(Part(cache, rows, places))
    return parts


class _Stored:
    """Neighbouring rows with so many new positions each."""

    def __init__(
        self, cache: StoredRows, rows: range, num_new: Sequence[int], places: slice
    ) -> None:
        self.places = places
        self._cache = cache
        num = cache.config.num_kv_heads
        new = [
            (row, cache.lengths[row] + place)
            for row, number in zip(rows, num_new, strict=True)
            for place in range(number)
        ]
        heads = [[*range(row * num, row * num + num)] for row, _ in new]
        at = [[place] for _, place in new]
        self._stored_at = (
            torch.tensor(heads, device=cache.device),
            torch.tensor(at, device=cache.device),
        )

    def __len__(self) -> int:
        return len(range(self.places.stop)[self.places])

    def _store(self, layer: int, k_PKD: Tensor, v_PKD: Tensor) -> tuple[Tensor, Tensor]:
        """All that is stored of a layer, with this."""
        keys, values = self._cache.storage(layer)
        keys.index_put_(self._stored_at, k_PKD)
        values.index_put_(self._stored_at, v_PKD)
        return keys, values


class Beginnings(_Stored):
    """Neighbouring rows that begin, each with several positions."""

    def __init__(
        self, cache: StoredRows, rows: range, num_new: Sequence[int], places: slice
    ) -> None:
        super().__init__(cache, rows, num_new, places)
        assert cache.packs is not None
        self._attention = cache.packs(tuple(num_new), cache.device)

    def __call__(
        self, layer: int, q_PHD: Tensor, k_PKD: Tensor, v_PKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        """What the part's positions read, (P, H, D)."""
        self._store(layer, k_PKD, v_PKD)
        return self._attention(layer, q_PHD[None], k_PKD[None], v_PKD[None], rule)[0]


class Part(_Stored):
    """Neighbouring rows with one new position each, or one row with any number."""

    def __init__(self, cache: StoredRows, rows: range, places: slice) -> None:
        self._num_new = T = (places.stop - places.start) // len(rows)
        super().__init__(cache, rows, [T] * len(rows), places)
        self._num_rows, self._held = len(rows), cache.lengths[rows.start : rows.stop]
        num = cache.config.num_kv_heads
        self._heads = slice(rows.start * num, rows.stop * num)
        # Of many new positions each sees few beyond those before: by pieces that is not computed.
        size = PIECE if cache.is_steady else T
        self._pieces = [range(start, min(start + size, T)) for start in range(0, T, size)]
        self._masks: dict[tuple[AttentionRule, int], Tensor | None] = {}

    def __call__(
        self, layer: int, q_PHD: Tensor, k_PKD: Tensor, v_PKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        """What the part's positions read, (P, H, D)."""
        keys, values = self._store(layer, k_PKD, v_PKD)
        if len(self._pieces) == 1:
            return self._read(q_PHD, keys, values, self._pieces[0], rule)
        out = [
            self._read(q_PHD[piece.start : piece.stop], keys, values, piece, rule)
            for piece in self._pieces
        ]
        return torch.cat(out)

    def _read(
        self, q_PHD: Tensor, keys: Tensor, values: Tensor, piece: range, rule: AttentionRule
    ) -> Tensor:
        """What a piece of the new positions reads."""
        num_attended = self._num_attended(piece)
        k_NSD, v_NSD = keys[self._heads, :num_attended], values[self._heads, :num_attended]
        mask = self._mask(rule, piece)
        return self._cache.attend(q_PHD, k_NSD, v_NSD, mask, rule, self._num_rows)

    def _num_attended(self, piece: range) -> int:
        num_attended = max(self._held) + piece.stop
        return steady_length(num_attended) if self._cache.is_steady else num_attended

    def _mask(self, rule: AttentionRule, piece: range) -> Tensor | None:
        key = rule, piece.start
        if key not in self._masks:
            self._masks[key] = self._new_mask(rule, piece)
        return self._masks[key]

    def _new_mask(self, rule: AttentionRule, piece: range) -> Tensor | None:
        """None where all that is stored is seen, or causal attention is all there is."""
        num_attended = self._num_attended(piece)
        is_plain = self._held == [0] and not self._cache.is_steady
        is_uniform = self._num_new == 1 and set(self._held) == {num_attended - 1}
        if (is_plain or is_uniform) and (rule.window is None or rule.window >= num_attended):
            return None
        device = self._cache.device
        positions_BT = torch.tensor([[held + new for new in piece] for held in self._held])
        mask = seen(positions_BT.to(device), num_attended, rule)
        if self._cache.is_steady:
            num_heads, num_kv_heads = self._cache.config.num_heads, self._cache.config.num_kv_heads
            return steady_mask(mask, num_kv_heads, num_heads // num_kv_heads)
        if rule.softcap is not None:
            return mask
        # What is added to the scores: attention would make it anew in each layer.
        return torch.where(mask, 0.0, -torch.inf).to(self._cache.dtype)


def _neighbours(cache: StoredRows, num_new: Sequence[int]) -> list[range]:
    """The rows of a pass: neighbours with one new position together, and those that begin where
    they can be, others alone."""

    def joins(row: int) -> bool:
        if num_new[row] == 1 or num_new[row - 1] == 1:
            return num_new[row] == num_new[row - 1]
        return cache.packs is not None and not cache.lengths[row] and not cache.lengths[row - 1]

    parts: list[range] = []
    for row, number in enumerate(num_new):
        if number and parts and parts[-1].stop == row and joins(row):
            parts[-1] = range(parts[-1].start, row + 1)
        elif number:
            parts.append(range(row, row + 1))
    return parts
