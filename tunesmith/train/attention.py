"""Attention over a packed row: every sequence sees itself alone.

A row of whole sequences costs the linear layers nothing for padding; only attention has to know
where one ends. On a CUDA device torch's own operator for sequences of different length does that,
on a CPU in fp32 our own (model/packed.py), elsewhere sequences of equal length go through torch's
attention together, the others one by one. On a CPU that beat a padded grid (by a quarter), a mask
over the row (four times slower) and jagged tensors (refused by torch there).

Models that bring their own attention (the slow path) get a padded grid instead.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tunesmith.errors import JobError
from tunesmith.model.attention import Attention, AttentionRule
from tunesmith.model.decoder import LowRankUpdate
from tunesmith.model.fixed_decoder import FixedDecoder
from tunesmith.model.load import CausalModel
from tunesmith.model.packed import (
    HALVES,
    PROBE_LENGTHS,
    PackedAttention,
    SplitAttention,
    VarlenAttention,
)
from tunesmith.train.batches import MicroBatch
from tunesmith.train.shared import Shared

Kind = Literal["varlen", "split", "padded"]
"""How sequences of one micro-batch are kept apart."""

# What the probe lets a state move, as a share of the largest; far above rounding, far below what
# a neighbour's key or a wrong position makes of it.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2}
IN_FIXED_POINT = 5e-3


class SharedAttention:
    """Attention of whole sequences, for a row that has their equal beginnings once."""

    def __init__(self, inner: Attention, shared: Shared) -> None:
        self._inner = inner
        self._shared = shared

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        places_P = self._shared.places_P
        q, k, v = (x.index_select(1, places_P) for x in (q_BTHD, k_BTKD, v_BTKD))
        return self._inner(layer, q, k, v, rule).index_select(1, self._shared.firsts_T)


def choose(model: CausalModel) -> tuple[Kind, str | None]:
    """The fastest kind that keeps sequences apart, proven on the loaded model, and what was
    passed over for it, if anything, in words for the user. Raises JobError where none does.
    """
    if model.slow:
        return "padded", None
    reason = None
    if model.device.type == "cuda" and model.dtype in HALVES:
        if keeps_apart(model, "varlen"):
            return "varlen", None
        reason = "The fused attention of this GPU mixes sequences; a slower one is used instead."
    if keeps_apart(model, "split"):
        return "split", reason
    raise JobError(
        "Sequences that share a row change each other's result (check: packed_equals_alone). This "
        "is a fault of the program or of this build of torch, not of the data: please report it.",
        code="packing_mixes_rows",
    )


@torch.no_grad()
def keeps_apart(model: CausalModel, kind: Kind) -> bool:
    """Whether sequences have the same states packed and alone."""
    generator = torch.Generator().manual_seed(0)
    total = sum(PROBE_LENGTHS)
    ids_T = torch.randint(model.vocab_size, (total,), generator=generator)
    positions_T = torch.cat([torch.arange(length) for length in PROBE_LENGTHS])
    none = torch.empty(0, dtype=torch.int64)
    names = tuple(range(len(PROBE_LENGTHS)))
    row = MicroBatch(ids_T[None], positions_T[None], PROBE_LENGTHS, names, none, none, none, none)
    packed_TE = hidden(model, row.to(model.device), kind, None)
    parts = torch.split(ids_T, list(PROBE_LENGTHS))
    alone_TE = torch.cat([model.hidden(part[None].to(model.device))[0] for part in parts])
    share = TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])
    share = IN_FIXED_POINT if isinstance(model, FixedDecoder) else share
    return bool((packed_TE - alone_TE).abs().max() <= share * alone_TE.abs().max())


def hidden(
    model: CausalModel,
    batch: MicroBatch,
    kind: Kind,
    lora: LowRankUpdate | None,
    *,
    recompute: bool = False,
    places_N: Tensor | None = None,
) -> Tensor:
    """Final hidden states of every position of the row (T, E), or of these (N, E)."""
    if kind == "padded":
        states_TE = _padded(model, batch, lora)
        return states_TE if places_N is None else states_TE[places_N]
    attention: Attention = (
        VarlenAttention(batch.lengths, model.device)
        if kind == "varlen"
        else SplitAttention(batch.lengths)
    )
    if batch.shared is not None:
        attention = SharedAttention(attention, batch.shared)
    if kind == "split" and model.device.type == "cpu":
        shared = () if batch.shared is None else (batch.shared.places_P, batch.shared.firsts_T)
        attention = PackedAttention(batch.lengths, attention, *shared)
    states_1TE = model.hidden(
        batch.ids_1T,
        positions_BT=batch.positions_1T,
        attention=attention,
        lora=lora,
        recompute=recompute,
        places_N=places_N,
    )
    return states_1TE[0]


def _padded(model: CausalModel, batch: MicroBatch, lora: LowRankUpdate | None) -> Tensor:
    """By a grid of one sequence a line; the causal mask alone hides padding on the right."""
    width = max(batch.lengths)
    starts = [line * width for line in range(len(batch.lengths))]
    places_T = torch.cat(
        [torch.arange(start, start + n) for start, n in zip(starts, batch.lengths, strict=True)]
    ).to(model.device)
    ids = torch.zeros(len(starts) * width, dtype=torch.int64, device=model.device)
    ids[places_T] = batch.ids_1T[0]
    return model.hidden(ids.view(-1, width), lora=lora).flatten(0, 1)[places_T]
