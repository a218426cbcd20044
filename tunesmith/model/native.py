"""What serving computes by a few lines of C (`native.c`); without a compiler torch does."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tunesmith.model.attention import AttentionRule
from tunesmith.model.compiler import FLOAT, INT, LONG, POINTER, SERVING, compiled
from tunesmith.model.decoder import Linears
from tunesmith.model.families import DecoderConfig
from tunesmith.model.lora import Adapter

# Of an adapter: more would not fit beside each other on a thread's stack.
MAX_RANK = 4096
# As in native.c, where the registers of no processor are longer.
HEADS, MAX_LANES = 4, 16


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they cannot be had."""
    found = compiled(
        SERVING, "bases in bf16 are served in fp32, with twice the memory and at half the speed"
    )
    if found is None:
        return None
    found.product.argtypes = [POINTER, LONG, LONG, POINTER, LONG, *[POINTER] * 3, INT]
    found.adapt.argtypes = [POINTER, LONG, LONG, *[POINTER] * 5, LONG, *[POINTER] * 2, LONG, INT]
    of_new: list[Any] = [POINTER, LONG] * 3
    of_stored: list[Any] = [POINTER] * 4 + [LONG] * 5
    found.attend.argtypes = [*of_new, LONG, *of_stored, FLOAT, POINTER, LONG, POINTER, INT]
    found.norm.argtypes = [POINTER, LONG, LONG, POINTER, FLOAT, POINTER, INT]
    of_heads: list[Any] = [POINTER, *[LONG] * 4]
    found.norm_heads.argtypes = [*of_heads, POINTER, FLOAT, INT]
    found.gated.argtypes = [POINTER, LONG, LONG, POINTER, INT]
    found.turn_heads.argtypes = [*of_heads, POINTER, POINTER, LONG, INT]
    sizes: list[Any] = [LONG, LONG, FLOAT, LONG, LONG, LONG, FLOAT]
    of_cache: list[Any] = [POINTER, POINTER, LONG, *[POINTER] * 4, LONG]
    room: list[Any] = [*[POINTER] * 5, LONG, INT]
    found.layers.argtypes = [POINTER, LONG, POINTER, POINTER, *sizes, *of_cache, *room]
    for function in "product adapt attend norm norm_heads gated turn_heads layers".split():
        found[function].restype = None
    return found


class Panels:
    """A weight of bf16, (outputs, inputs), as `product` of native.c reads it."""

    def __init__(self, native: ctypes.CDLL, weight: Tensor) -> None:
        self._native = native
        self.shape = num_outputs, num_inputs = weight.shape
        lanes: int = native.lanes()
        num_panels = -(-num_outputs // (2 * lanes))
        filled = weight.new_zeros(num_panels * 2 * lanes, num_inputs)
        filled[:num_outputs] = weight
        # (panels, inputs, lanes, halves)
        self._panels = (
            filled.view(num_panels, 2, lanes, num_inputs).permute(0, 3, 2, 1).contiguous()
        )

    @property
    def num_bytes(self) -> int:
        return self._panels.nbytes

    @property
    def address(self) -> int:
        return self._panels.data_ptr()

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + bias in fp32, (..., inputs) -> (..., outputs)."""
        num_outputs, num_inputs = self.shape
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], num_outputs)
        turned = torch.empty_like(x)
        self._native.product(
            x.data_ptr(),
            x.numel() // num_inputs,
            num_inputs,
            self._panels.data_ptr(),
            num_outputs,
            None if bias is None else bias.data_ptr(),
            y.data_ptr(),
            turned.data_ptr(),
            torch.get_num_threads(),
        )
        return y

    def read(self) -> Tensor:
        """The weight, (outputs, inputs)."""
        return self._panels.permute(0, 3, 2, 1).flatten(0, 2)[: self.shape[0]]


class NativeRows:
    """The `LowRankUpdate` of rows with these adapters (None: the plain base), laid out by
    `Adapter.to`, for the products of a frozen decoder in fp32."""

    def __init__(self, native: ctypes.CDLL, adapters: Sequence[Adapter | None]) -> None:
        self._native = native
        self._adapters = list(dict.fromkeys(each for each in adapters if each is not None))
        numbers = {adapter: number for number, adapter in enumerate(self._adapters)}
        which = [-1 if each is None else numbers[each] for each in adapters]
        self.which = (INT * len(which))(*which)
        self.order = (INT * len(which))(*sorted(range(len(which)), key=which.__getitem__))
        specs = [each.spec for each in self._adapters]
        self.ranks = (INT * len(specs))(*(spec.rank for spec in specs))
        self.scales = (FLOAT * len(specs))(*(spec.scale for spec in specs))
        self._updates: dict[tuple[str, ...], ctypes.Array[Any]] = {}
        self._of_layers: tuple[ctypes.Array[Any], ...] = ()

    def adapt(self, names: tuple[str, ...], x: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its rows' updates."""
        outputs = products(names, x)
        sizes = [output.shape[-1] for output in outputs]
        x, y = x.contiguous(), outputs[0]
        num_rows = x.numel() // x.shape[-1]
        # Of a single text, which has one adapter, only some positions go through the last layer.
        assert num_rows == len(self.which) or len(set(self.which)) == 1
        self._native.adapt(
            x.data_ptr(),
            num_rows,
            x.shape[-1],
            self.order,
            self.which,
            self.updates(names),
            self.ranks,
            self.scales,
            len(names),
            words(sizes),
            y.data_ptr(),
            y.stride(-2),
            torch.get_num_threads(),
        )
        return outputs

    def of_layers(
        self,
        groups: Sequence[tuple[str, ...]],
        num_parts: ctypes.Array[Any],
        part_outputs: Sequence[ctypes.Array[Any]],
    ) -> ctypes.Array[Any]:
        """What `layers` of decoder.c takes, of linears that share an input, in the order of their
        use; of those of a layer their number, and the outputs of each."""
        if not self._of_layers:
            updates = words(ctypes.addressof(self.updates(names)) for names in groups)
            outputs = words(ctypes.addressof(each) for each in part_outputs)
            own: list[ctypes.Array[Any]]
            own = [self.order, self.which, self.ranks, self.scales, updates, num_parts, outputs]
            self._of_layers = words(ctypes.addressof(each) for each in own), updates, outputs
        return self._of_layers[0]

    def updates(self, names: tuple[str, ...]) -> ctypes.Array[Any]:
        """Where the matrices lie: A and B of each linear, by adapters."""
        if names not in self._updates:
            pointers = [
                side[name].data_ptr() if name in side else None
                for adapter in self._adapters
                for name in names
                for side in (adapter.a, adapter.b)
            ]
            self._updates[names] = (POINTER * len(pointers))(*pointers)
        return self._updates[names]


def words(numbers: Iterable[int]) -> ctypes.Array[Any]:
    """Numbers or addresses, for C."""
    found = list(numbers)
    return (LONG * len(found))(*found)


def adaptable(adapters: Collection[Adapter]) -> bool:
    """Whether `NativeRows` can compute them: DoRA stretches what it gets, so it cannot."""
    return not any(each.magnitude or each.spec.rank > MAX_RANK for each in adapters)


class Reading:
    """Attention of a pass: what its new positions (one after the other, each in a row of the cache
    and at a place there) read of stored keys and values, after their own are stored, too."""

    def __init__(self, native: ctypes.CDLL, rows: Sequence[int], places: Sequence[int]) -> None:
        self._native = native
        self.rows, self.places = words(rows), words(places)
        self.most = max(places) + 1
        """Keys that any of them reads, without a window."""

    @property
    def room(self) -> int:
        """Numbers that the scores of a head take, for each thread."""
        return -(-self.most // MAX_LANES) * MAX_LANES

    def __call__(
        self,
        q_PHD: Tensor,
        k_PKD: Tensor,
        v_PKD: Tensor,
        keys_NSD: Tensor,
        values_NSD: Tensor,
        rule: AttentionRule,
    ) -> Tensor:
        """(P, H, D) of the first P positions, as many as the pass has. The heads of a position lie
        one after the other, the N stored ones by rows."""
        P, (_, H, D) = len(self.rows), q_PHD.shape
        num_threads, room = torch.get_num_threads(), self.room
        scores = q_PHD.new_empty(num_threads * HEADS * room)
        out = q_PHD.new_empty(P, H, D)
        self._native.attend(
            q_PHD.data_ptr(),
            q_PHD.stride(0),
            k_PKD.data_ptr(),
            k_PKD.stride(0),
            v_PKD.data_ptr(),
            v_PKD.stride(0),
            P,
            self.rows,
            self.places,
            keys_NSD.data_ptr(),
            values_NSD.data_ptr(),
            keys_NSD.shape[1],
            H,
            k_PKD.shape[1],
            D,
            self.most if rule.window is None else rule.window,
            rule.factor(D),
            scores.data_ptr(),
            room,
            out.data_ptr(),
            num_threads,
        )
        return out


def readable(native: ctypes.CDLL, config: DecoderConfig) -> bool:
    """Whether `Reading` can: it caps no scores, and heads are of whole registers."""
    return config.attention_softcap is None and config.head_dim % native.lanes() == 0


def norm(native: ctypes.CDLL, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, of the last dimension."""
    x, num_threads = x.contiguous(), torch.get_num_threads()
    y, size = torch.empty_like(x), x.shape[-1]
    num_rows = x.numel() // size
    native.norm(x.data_ptr(), num_rows, size, weight.data_ptr(), eps, y.data_ptr(), num_threads)
    return y


def norm_heads(native: ctypes.CDLL, x_NHD: Tensor, weight: Tensor, eps: float) -> None:
    """`norm` of each head, in place; the heads of a position lie one behind the other."""
    (H, D), stride = x_NHD.shape[-2:], x_NHD.stride(-3)
    num_rows, num_threads = x_NHD.numel() // (H * D), torch.get_num_threads()
    native.norm_heads(x_NHD.data_ptr(), num_rows, stride, H, D, weight.data_ptr(), eps, num_threads)


def gated(native: ctypes.CDLL, x: Tensor) -> Tensor:
    """silu(gate) * up, of gates and ups that lie one behind the other in the last dimension."""
    x, size = x.contiguous(), x.shape[-1] // 2
    y = x.new_empty(*x.shape[:-1], size)
    num_rows = y.numel() // size
    native.gated(x.data_ptr(), num_rows, size, y.data_ptr(), torch.get_num_threads())
    return y


def turn_heads(
    native: ctypes.CDLL, x_NHD: Tensor, num_heads: int, cos_N1D: Tensor, sin_N1D: Tensor
) -> None:
    """Turns the first heads of each position in place; (..., N, H, D) is contiguous."""
    D = x_NHD.shape[-1]
    stride, num_threads = x_NHD.stride(-3), torch.get_num_threads()
    native.turn_heads(
        x_NHD.data_ptr(),
        x_NHD.numel() // stride,
        stride,
        num_heads,
        D,
        cos_N1D.data_ptr(),
        sin_N1D.data_ptr(),
        cos_N1D.stride(-3),
        num_threads,
    )
