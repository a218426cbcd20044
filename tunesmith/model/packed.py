"""Attention of sequences that share a row, in fp32 on a CPU by one call (`learning.c`).

torch's own takes each sequence by itself, and more than twice the time for some hundred positions:
it splits them over threads and vectors as if they were thousands.

Shape suffixes: T positions of the row, P positions of its sequences one after the other, H query
heads, K key heads, D head size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tunesmith.model import learning
from tunesmith.model.attention import Attention, AttentionRule, causal
from tunesmith.model.compiler import FLOAT, LONG, POINTER


class SplitAttention:
    """The decoder's `Attention` for one row (B = 1) of sequences with these lengths."""

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self._runs = [(length, len(list(run))) for length, run in groupby(lengths)]

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        q, k, v = (self._cut(x) for x in (q_BTHD, k_BTKD, v_BTKD))
        out = [causal(layer, *run, rule).flatten(0, 1) for run in zip(q, k, v, strict=True)]
        return torch.cat(out)[None]

    def _cut(self, x_BTHD: Tensor) -> list[Tensor]:
        """Runs of sequences of one length, each (count, length, H, D)."""
        sizes = [length * count for length, count in self._runs]
        parts = torch.split(x_BTHD[0], sizes)
        return [
            part.view(count, length, *part.shape[1:])
            for part, (length, count) in zip(parts, self._runs, strict=True)
        ]


class PackedAttention:
    """The decoder's `Attention` for one row (B = 1) of sequences with these lengths.

    `places_P` says where in the row each position of the sequences is, `firsts_T` which of them
    each of the row stands for first. What C cannot do is left to `otherwise`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        otherwise: Attention,
        places_P: Tensor | None = None,
        firsts_T: Tensor | None = None,
    ) -> None:
        self._otherwise = otherwise
        self._packing = _Packing(lengths, places_P, firsts_T)

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        found = learning.found_for(q_BTHD, k_BTKD, v_BTKD)
        window = self._packing.longest if rule.window is None else rule.window
        is_plain = rule.softcap is None and window >= self._packing.longest
        if found is None or not is_plain or q_BTHD.shape[-1] % found.lanes():
            return self._otherwise(layer, q_BTHD, k_BTKD, v_BTKD, rule)
        given = q_BTHD[0], k_BTKD[0], v_BTKD[0], self._packing, rule.factor(q_BTHD.shape[-1])
        out_THD: Tensor = _Packed.apply(*given)  # type: ignore[no-untyped-call]
        return out_THD[None]


class _Packing(ctypes.Structure):
    """As in learning.c."""

    _fields_ = (
        ("num_sequences", LONG),
        ("starts", POINTER),
        ("places", POINTER),
        ("skips", POINTER),
    )

    def __init__(
        self, lengths: Sequence[int], places_P: Tensor | None, firsts_T: Tensor | None
    ) -> None:
        self.longest = max(lengths)
        starts = list(accumulate(lengths, initial=0))
        self.num_places = starts[-1]
        # What a sequence has in common with another is its beginning.
        skips = [0] * len(lengths)
        if firsts_T is not None:
            is_first_P = torch.zeros(self.num_places, dtype=torch.int64)
            is_first_P[firsts_T] = 1
            parts = torch.split(is_first_P, list(lengths))
            skips = [len(part) - int(part.sum()) for part in parts]
        places_P = torch.arange(self.num_places) if places_P is None else places_P
        self._kept = torch.tensor(starts), places_P.contiguous(), torch.tensor(skips)
        super().__init__(len(lengths), *(each.data_ptr() for each in self._kept))


class _Heading(ctypes.Structure):
    """As in learning.c."""

    _fields_ = (("num", LONG), ("num_kv", LONG), ("size", LONG), ("factor", FLOAT))


class _Packed(Function):
    @staticmethod
    def forward(
        ctx: Any, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: _Packing, factor: float
    ) -> Tensor:
        q_THD, k_TKD, v_TKD = (_with_whole_heads(x) for x in (q_THD, k_TKD, v_TKD))
        out_THD = q_THD.new_empty(q_THD.shape)
        logs_TH = q_THD.new_empty(q_THD.shape[:-1])
        results = out_THD.data_ptr(), logs_TH.data_ptr()
        _call("attend", packing, factor, (q_THD, k_TKD, v_TKD), *results)
        ctx.packing, ctx.factor = packing, factor
        ctx.save_for_backward(q_THD, k_TKD, v_TKD, out_THD, logs_TH)
        return out_THD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_THD, k_TKD, v_TKD, out_THD, logs_TH = ctx.saved_tensors
        of_q_THD = q_THD.new_empty(q_THD.shape)
        of_k_TKD, of_v_TKD = k_TKD.new_empty(k_TKD.shape), v_TKD.new_empty(v_TKD.shape)
        T, K, D = k_TKD.shape
        parts = k_TKD.new_empty(2, K, ctx.packing.num_places, D)
        toward_THD = gradients[0].contiguous()
        tensors = out_THD, logs_TH, toward_THD, of_q_THD, of_k_TKD, of_v_TKD
        pointers = (x.data_ptr() for x in tensors)
        given = *pointers, T, parts.data_ptr()
        _call("attend_backward", ctx.packing, ctx.factor, (q_THD, k_TKD, v_TKD), *given)
        return of_q_THD, of_k_TKD, of_v_TKD, None, None


def _call(
    name: str, packing: _Packing, factor: float, heads: tuple[Tensor, ...], *given: int
) -> None:
    found = learning.library()
    assert found is not None, "without a compiler nothing gets here"
    (_, H, D), K = heads[0].shape, heads[1].shape[1]
    num_threads = torch.get_num_threads()
    room: int = found.attention_room(packing.longest, D)
    rooms = heads[0].new_empty(num_threads, room)
    getattr(found, name)(
        ctypes.byref(packing),
        ctypes.byref(_Heading(H, K, D, factor)),
        *(part for x in heads for part in (x.data_ptr(), x.stride(0))),
        *given,
        rooms.data_ptr(),
        room,
        num_threads,
    )


def _with_whole_heads(x_THD: Tensor) -> Tensor:
    """The heads of a position have to lie one after the other, its own may lie apart."""
    num, size = x_THD.shape[1:]
    return x_THD if x_THD.stride()[1:] == (size, 1) or num == 1 else x_THD.contiguous()
