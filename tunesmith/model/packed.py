"""Attention of sequences that share a row: by torch's fused operator on a GPU, in training in fp32
on a CPU by one call (`learning.c`), elsewhere one after the other.

On a CPU torch takes more than twice as long as that call for sequences of some hundred positions:
it splits them over threads and vectors as if they were thousands.

Shape suffixes: T positions of the row, P positions of its sequences one after the other, H query
heads, K key heads, D head size.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tunesmith.model import learning
from tunesmith.model.attention import Attention, AttentionRule, causal
from tunesmith.model.compiler import FLOAT, LONG, POINTER
from tunesmith.model.families import DecoderConfig

log = logging.getLogger(__name__)

Packs = Callable[[tuple[int, ...], torch.device], Attention]
"""Makes the `Attention` of one row (B = 1) of sequences with these lengths."""

HALVES = (torch.bfloat16, torch.float16)
PROBE_LENGTHS = (7, 4, 4, 1)
# Of the largest number: far above rounding, far below what a neighbour's key makes of it.
TOLERANCE = 5e-2


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


class VarlenAttention:
    """The same by torch's fused operator, for half-precision tensors on a CUDA device."""

    def __init__(self, lengths: tuple[int, ...], device: torch.device) -> None:
        starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        self._starts = starts.to(device, non_blocking=True)
        self._longest = max(lengths)
        self._split = SplitAttention(lengths)

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        if rule.softcap is not None:
            return self._split(layer, q_BTHD, k_BTKD, v_BTKD, rule)
        from torch.nn.attention.varlen import varlen_attn

        out_THD = varlen_attn(
            q_BTHD[0],
            k_BTKD[0],
            v_BTKD[0],
            self._starts,
            self._starts,
            self._longest,
            self._longest,
            scale=rule.scale,
            window_size=(-1 if rule.window is None else rule.window - 1, 0),
            enable_gqa=q_BTHD.shape[2] != k_BTKD.shape[2],
        )
        assert isinstance(out_THD, torch.Tensor), "asked for nothing but the output"
        return out_THD[None]


def packs_for(config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> Packs | None:
    """What reads sequences that lie one behind the other; None where each is read by itself."""
    if device.type != "cuda" or dtype not in HALVES:
        return None
    sizes = config.num_heads, config.num_kv_heads, config.head_dim
    return VarlenAttention if _keeps_apart(VarlenAttention, *sizes, device, dtype) else None


@cache
def _keeps_apart(
    packs: Packs,
    num_heads: int,
    num_kv_heads: int,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> bool:
    """Whether it is there, and reads what each sequence alone would."""
    q, k, v = (
        torch.linspace(-1, 1, sum(PROBE_LENGTHS) * num * size).sin().mul_(3)
        for num in (num_heads, num_kv_heads, num_kv_heads)
    )
    q, k, v = (x.view(1, sum(PROBE_LENGTHS), -1, size).to(device, dtype) for x in (q, k, v))
    try:
        found = packs(PROBE_LENGTHS, device)(0, q, k, v, AttentionRule())
        expected = SplitAttention(PROBE_LENGTHS)(0, q, k, v, AttentionRule())
        if float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max()):
            return True
        log.warning("fused attention of several prompts is wrong here and not used")
    except (ImportError, RuntimeError) as error:
        log.warning("fused attention of several prompts is not available: %s", error)
    return False


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
