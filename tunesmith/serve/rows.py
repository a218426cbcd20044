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

from tunesmith.model import native
from tunesmith.model.decoder import Decoder, LowRankUpdate
from tunesmith.model.frozen import FrozenDecoder
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter, AdapterBatch
from tunesmith.model.recorded import Recorder
from tunesmith.model.stack import AdapterStack, stackable
from tunesmith.model.threads import threads_for
from tunesmith.model.transformers_path import TransformersModel
from tunesmith.serve.cache import RowsView, SlotCache


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

    def add(self, copy_of: int | None = None) -> int:
        """A new last row, empty or as another one."""
        ...

    def move(self, source: int, target: int) -> None:
        """Row `target` becomes row `source`, whose number is to be dropped or overwritten next."""
        ...

    def drop_last(self) -> None: ...

    @property
    def position_bytes(self) -> int:
        """Of what `read` gives for one position; 0 where a row cannot be read."""
        ...

    def read(self, row: int, start: int, stop: int) -> Tensor:
        """Keys and values of a row's positions, (2 x layers, K, positions, D)."""
        ...

    def write(self, row: int, content: Tensor) -> None:
        """Makes what `read` gave the beginning of an empty row."""
        ...

    def run(self, ids: Sequence[Sequence[int]], adapters: Sequence[Adapter | None]) -> Tensor:
        """Adds `ids` to each row (none: it is left alone); scores (B, V) after the last id of
        each row that got some, fp32."""
        ...


def rows_of(
    model: CausalModel, max_rows: int, num_threads: int = 1, stack: AdapterStack | None = None
) -> Rows:
    """Rows for `model`; a large pass may use `num_threads`, adapters stay in `stack` afterwards."""
    if isinstance(model, Decoder):
        return BatchedRows(model, max_rows, num_threads, stack)
    assert isinstance(model, TransformersModel)
    return SequentialRows(model)


class BatchedRows(SlotCache):
    def __init__(
        self,
        model: Decoder,
        max_rows: int,
        num_threads: int = 1,
        stack: AdapterStack | None = None,
    ) -> None:
        self._compiled = model.compiled if isinstance(model, FrozenDecoder) else None
        super().__init__(
            model.config,
            dtype=model.dtype,
            device=model.device,
            max_rows=max_rows,
            attend=model.attend,
            compiled=self._compiled,
        )
        self._model = model
        self._num_threads = num_threads
        self._stack = stack or AdapterStack()
        self._last: tuple[list[Adapter | None], native.NativeRows] | None = None
        self._num_weights = model.num_bytes // model.dtype.itemsize
        self._recorder = Recorder(model) if model.device.type == "cuda" else None

    def run(self, ids: Sequence[Sequence[int]], adapters: Sequence[Adapter | None]) -> Tensor:
        if self._recorder is not None and all(len(row) == 1 for row in ids):
            lora = self._update(list(adapters), len(ids))
            scores_BV = self._recorder.step(ids, self.lengths, self._layers, lora)
            if scores_BV is not None:
                self.lengths = [length + 1 for length in self.lengths]
                return scores_BV
        new = [(row, adapter) for row, adapter in zip(ids, adapters, strict=True) if row]
        ids_N = [token for row, _ in new for token in row]
        num_prompts = sum(len(row) > 1 for row in ids)
        num_products = self._num_weights * len(ids_N)
        torch.set_num_threads(threads_for(num_products, num_prompts, self._num_threads))
        view = RowsView(self, [len(row) for row in ids])
        adapters_N = [adapter for row, adapter in new for _ in row]
        lora = self._update(adapters_N, view.positions.numel(), view.positions.dim() == 2)
        new_N = torch.tensor(ids_N, device=self._model.device)
        lasts_B = torch.tensor(view.lasts * (2 if len(view.lasts) == 1 else 1), device=new_N.device)
        is_one = view.positions.dim() == 2
        hidden = self._model.hidden(
            new_N.expand(view.positions.shape),
            positions_BT=view.positions,
            attention=view,
            lora=lora,
            places_N=lasts_B if is_one else None,
        ).flatten(0, -2)
        view.advance()
        scores_BV = self._model.logits(hidden if is_one else hidden[lasts_B])
        return scores_BV[: len(view.lasts)].float()

    def _update(
        self, adapters: list[Adapter | None], num_positions: int, is_one: bool = False
    ) -> LowRankUpdate | None:
        """What the adapters of each position make of a pass."""
        different = {adapter for adapter in adapters if adapter is not None}
        if not different:
            self._last = None  # nor are they kept alive
            return None
        adapters = adapters * (num_positions // len(adapters))
        if self._compiled is not None and native.adaptable(different):
            # From step to step they are mostly the same.
            if self._last is None or self._last[0] != adapters:
                self._last = adapters, native.NativeRows(self._compiled, adapters)
            return self._last[1]
        if is_one:
            return AdapterBatch(adapters[:1])
        if stackable(different, len(adapters)):
            return self._stack.rows(adapters)
        return AdapterBatch(adapters)


class SequentialRows:
    """Memory of these rows is transformers' business and is not counted."""

    num_bytes = 0
    position_bytes = 0

    def __init__(self, model: TransformersModel) -> None:
        self._model = model
        self._past: list[Any] = []
        self.lengths: list[int] = []

    def bytes_for(self, num_rows: int, length: int, *, tight: bool = False) -> int:
        return 0

    def reserve(self, num_rows: int, length: int, *, tight: bool = False) -> None:
        pass

    def add(self, copy_of: int | None = None) -> int:
        self._past.append(None if copy_of is None else copy.deepcopy(self._past[copy_of]))
        self.lengths.append(0 if copy_of is None else self.lengths[copy_of])
        return len(self.lengths) - 1

    def move(self, source: int, target: int) -> None:
        self._past[target] = self._past[source]
        self.lengths[target] = self.lengths[source]

    def drop_last(self) -> None:
        self._past.pop()
        self.lengths.pop()

    def read(self, row: int, start: int, stop: int) -> Tensor:
        raise NotImplementedError

    def write(self, row: int, content: Tensor) -> None:
        raise NotImplementedError

    def run(self, ids: Sequence[Sequence[int]], adapters: Sequence[Adapter | None]) -> Tensor:
        scores = []
        for row, (new, adapter) in enumerate(zip(ids, adapters, strict=True)):
            if not new:
                continue
            ids_1T = torch.tensor([list(new)], device=self._model.device)
            hidden_1TE, self._past[row] = self._model.step(ids_1T, self._past[row], adapter)
            self.lengths[row] += len(new)
            scores.append(self._model.logits(hidden_1TE[0, -1]).float())
        return torch.stack(scores)
