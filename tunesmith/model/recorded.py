"""A step of single tokens on a GPU, recorded once and then replayed (CUDA graphs).

A step of a few rows is a thousand small kernels, which take longer to launch one by one than to
run. A recording has fixed places and sizes: it computes every row there is room for, each attending
to all positions there is room for, and what changes from step to step is copied to where the
recording reads it. It is void once the stored keys and values, or the stack of adapters, lie
elsewhere.

Shape suffixes as in `decoder.py`; R rows there is room for, S positions.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tunesmith.model.attention import AttentionRule, attend, seen
from tunesmith.model.decoder import Decoder, LowRankUpdate
from tunesmith.model.stack import StackedRows

log = logging.getLogger(__name__)

# A recording takes as long as a few dozen steps.
WORTHWHILE_STEPS = 16
NUM_WARM_UPS = 2
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

Storage = Sequence[tuple[Tensor, Tensor]]


class AllRows:
    """The decoder's `Attention` of one new position of every row there is room for; keeps none of
    the storage alive."""

    def __init__(self, storage: Storage, num_kv_heads: int, positions_R: Tensor) -> None:
        self._storage = [(weakref.ref(keys), weakref.ref(values)) for keys, values in storage]
        self._num_kv_heads = num_kv_heads
        self._positions_R = positions_R
        self._rows_R = torch.arange(len(positions_R), device=positions_R.device)

    def is_of(self, storage: Storage) -> bool:
        """Whether the keys and values are still there, and those."""
        return len(storage) == len(self._storage) and all(
            refs[0]() is keys for refs, (keys, _) in zip(self._storage, storage, strict=True)
        )

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        """(R, H, D); T is left out everywhere."""
        num = len(self._positions_R)
        keys, values = (self._of_rows(ref(), num) for ref in self._storage[layer])
        keys[self._rows_R, :, self._positions_R] = k_BTKD
        values[self._rows_R, :, self._positions_R] = v_BTKD
        mask_R1S = seen(self._positions_R[:, None], keys.shape[2], rule)
        return attend(q_BTHD[:, None], keys, values, mask_R1S, rule)[:, 0]

    def _of_rows(self, x: Tensor | None, num: int) -> Tensor:
        assert x is not None, "`is_of` is asked first"
        return x.view(num, self._num_kv_heads, *x.shape[1:])


class RecordedStep:
    """One for a cache's `storage`, and `rows` of a stack of adapters, or none."""

    def __init__(self, model: Decoder, storage: Storage, rows: StackedRows | None) -> None:
        self._model = model
        keys, _ = storage[0]
        num_rows = len(keys) // model.config.num_kv_heads
        self._ids_R = torch.zeros(num_rows, dtype=torch.int64, device=model.device)
        self._positions_R = torch.zeros_like(self._ids_R)
        self._attention = AllRows(storage, model.config.num_kv_heads, self._positions_R)
        self._rows = None if rows is None else rows.recordable(num_rows)
        self._step: Callable[[], Tensor] | None = None

    def fits(self, storage: Storage, rows: StackedRows | None) -> bool:
        """Whether it still computes what it was made for."""
        if not self._attention.is_of(storage) or (rows is None) != (self._rows is None):
            return False
        return rows is None or (self._rows is not None and self._rows.fits(rows))

    def __call__(
        self, ids_B: Sequence[int], positions_B: Sequence[int], rows: StackedRows | None
    ) -> Tensor:
        """Scores (B, V) after the ids at these places of the first rows."""
        num = len(ids_B)
        # Rows that nobody has are computed at their first place, where whoever comes begins.
        padding = [0] * (len(self._ids_R) - num)
        self._ids_R.copy_(torch.tensor([*ids_B, *padding]))
        self._positions_R.copy_(torch.tensor([*positions_B, *padding]))
        if self._rows is not None and rows is not None:
            self._rows.take(rows)
        if self._step is None:
            self._step = self._record()
        return self._step()[:num]

    def _compute(self) -> Tensor:
        hidden_RE = self._model.hidden(
            self._ids_R,
            positions_BT=self._positions_R,
            attention=self._attention,
            lora=self._rows,
        )
        return self._model.logits(hidden_RE).float()

    def _record(self) -> Callable[[], Tensor]:
        """Elsewhere than on a GPU there is nothing to be recorded, and each step is computed."""
        if self._model.device.type != "cuda":
            return self._compute
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(NUM_WARM_UPS):
                expected = self._compute().clone()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads load what the next requests need meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            scores_RV = self._compute()

        def replay() -> Tensor:
            graph.replay()
            return scores_RV

        limit = TOLERANCE[self._model.dtype] * max(float(expected.abs().max()), 1e-6)
        if not float((replay() - expected).abs().max()) <= limit:
            raise RuntimeError("a recorded step gives other scores than a computed one")
        return replay


class Recorder:
    """Steps of one cache: computed at first, recorded once they go on; `step` gives None where the
    step is to be computed as ever."""

    def __init__(self, model: Decoder) -> None:
        self._model = model
        self._recorded: RecordedStep | None = None
        self._num_steps = 0
        self._works = True

    def step(
        self,
        ids: Sequence[Sequence[int]],
        positions_B: Sequence[int],
        storage: Storage,
        lora: LowRankUpdate | None,
    ) -> Tensor | None:
        if not self._works or not isinstance(lora, StackedRows | None):
            return None
        if self._recorded is None or not self._recorded.fits(storage, lora):
            self._recorded = None
            self._num_steps += 1
            if self._num_steps < WORTHWHILE_STEPS or (lora is not None and not lora.stack.stacked):
                return None
            self._num_steps = 0
            self._recorded = RecordedStep(self._model, storage, lora)
        try:
            return self._recorded([token for (token,) in ids], positions_B, lora)
        except RuntimeError as error:
            log.warning("steps are not recorded, each is launched anew: %s", error)
            self._works, self._recorded = False, None
            return None
