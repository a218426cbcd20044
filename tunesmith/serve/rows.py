"""Running sequences of one base, behind one interface whatever computes them.

`BatchedRows` computes many rows in one pass of our decoder. `SequentialRows` is for models that
run through transformers: each row has its own cache there, and a pass takes them one by one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tunesmith.model.decoder import Decoder
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter, AdapterBatch
from tunesmith.model.transformers_path import TransformersModel
from tunesmith.serve.cache import SlotCache

# Below so many multiplications a pass of one thread is faster than one of several that have to
# meet after every layer (nano: 2-3 times faster on a machine that is busy training).
ONE_THREAD = 128_000_000


class Rows(Protocol):
    """Rows are numbered from 0 without gaps; the order is the caller's business."""

    @property
    def lengths(self) -> list[int]:
        """Positions each row holds."""
        ...

    @property
    def num_bytes(self) -> int: ...

    def bytes_for(self, num_rows: int, length: int, *, tight: bool = False) -> int:
        """Memory of all rows once there is room for that many of that length."""
        ...

    def reserve(self, num_rows: int, length: int, *, tight: bool = False) -> None:
        """Makes that room, with some to grow unless `tight`; `add` and `run` need it."""
        ...

    def add(self, copy_of: int | None = None, length: int = 0) -> int:
        """A new last row. It starts with the first `length` positions of another row, where that
        can be had, and else empty; `lengths` tells."""
        ...

    def move(self, source: int, target: int) -> None:
        """Row `target` becomes row `source`, whose number is to be dropped or overwritten next."""
        ...

    def drop_last(self) -> None: ...

    def run(
        self, start: int, ids: Sequence[Sequence[int]], adapters: Sequence[Adapter | None]
    ) -> Tensor:
        """Adds `ids` to rows start, start + 1, ...; scores (B, V) after the last id of each, fp32.

        Rows that get more than one id must all have the same length before.
        """
        ...


def rows_of(model: CausalModel, max_rows: int, num_threads: int = 1) -> Rows:
    """Rows for `model`; `num_threads` is what a large pass may use."""
    if isinstance(model, Decoder):
        return BatchedRows(model, max_rows, num_threads)
    assert isinstance(model, TransformersModel)
    return SequentialRows(model)


class BatchedRows:
    def __init__(self, model: Decoder, max_rows: int, num_threads: int = 1) -> None:
        self._model = model
        self._num_threads = num_threads
        self._num_weights = model.num_bytes // model.dtype.itemsize
        self._cache = SlotCache(
            model.config, dtype=model.dtype, device=model.device, max_rows=max_rows
        )
        self.bytes_for = self._cache.bytes_for
        self.reserve = self._cache.reserve
        self.add = self._cache.add
        self.move = self._cache.move
        self.drop_last = self._cache.drop_last

    @property
    def lengths(self) -> list[int]:
        return self._cache.lengths

    @property
    def num_bytes(self) -> int:
        return self._cache.num_bytes

    def run(
        self, start: int, ids: Sequence[Sequence[int]], adapters: Sequence[Adapter | None]
    ) -> Tensor:
        num_new = [len(row) for row in ids]
        longest = max(num_new)
        small = self._num_weights * longest * len(ids) < ONE_THREAD
        torch.set_num_threads(1 if small else self._num_threads)
        padded = [[*row, *[0] * (longest - len(row))] for row in ids]
        view = self._cache.view(start, num_new)
        hidden_BTE = self._model.hidden(
            torch.tensor(padded, device=self._model.device),
            positions_BT=view.positions_BT,
            attention=view,
            lora=AdapterBatch.of(adapters),
        )
        view.advance()
        last_BE = hidden_BTE[range(len(ids)), [number - 1 for number in num_new]]
        return self._model.logits(last_BE).float()


class SequentialRows:
    """Memory of these rows is transformers' business and is not counted."""

    num_bytes = 0

    def __init__(self, model: TransformersModel) -> None:
        self._model = model
        self._past: list[Any] = []
        self.lengths: list[int] = []

    def bytes_for(self, num_rows: int, length: int, *, tight: bool = False) -> int:
        return 0

    def reserve(self, num_rows: int, length: int, *, tight: bool = False) -> None:
        pass

    def add(self, copy_of: int | None = None, length: int = 0) -> int:
        whole = copy_of is not None and self.lengths[copy_of] == length
        self._past.append(
            copy.deepcopy(self._past[copy_of]) if whole and copy_of is not None else None
        )
        self.lengths.append(length if whole else 0)
        return len(self.lengths) - 1

    def move(self, source: int, target: int) -> None:
        self._past[target] = self._past[source]
        self.lengths[target] = self.lengths[source]

    def drop_last(self) -> None:
        self._past.pop()
        self.lengths.pop()

    def run(
        self, start: int, ids: Sequence[Sequence[int]], adapters: Sequence[Adapter | None]
    ) -> Tensor:
        scores = []
        for row, (new, adapter) in enumerate(zip(ids, adapters, strict=True), start):
            ids_1T = torch.tensor([list(new)], device=self._model.device)
            hidden_1TE, self._past[row] = self._model.step(ids_1T, self._past[row], adapter)
            self.lengths[row] += len(new)
            scores.append(self._model.logits(hidden_1TE[0, -1]).float())
        return torch.stack(scores)
