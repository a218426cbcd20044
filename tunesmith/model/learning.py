"""What training in fp32 on a CPU computes by a few lines of C (`learning.c`), in one pass over
memory where torch takes several; without a compiler torch does.

Shape suffixes: T positions, E inputs, H heads, D head size.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tunesmith.model.compiler import FLOAT, INT, LEARNING, LONG, POINTER, compiled

_is_wanted = True


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they cannot be had."""
    found = compiled(LEARNING, "training takes up to a tenth longer")
    if found is None:
        return None
    of_heads: list[Any] = [POINTER, POINTER, *[POINTER, LONG] * 3]
    found.attend.argtypes = [*of_heads, *[POINTER] * 3, LONG, INT]
    found.attend_backward.argtypes = [*of_heads, *[POINTER] * 6, LONG, *[POINTER] * 2, LONG, INT]
    found.attention_room.argtypes = [LONG, LONG]
    found.attention_room.restype = LONG
    of_gate: list[Any] = [POINTER, LONG, POINTER, LONG, LONG, LONG]
    found.gate.argtypes = [*of_gate, POINTER, INT]
    found.gate_backward.argtypes = [*of_gate, *[POINTER] * 3, INT]
    found.norm.argtypes = [POINTER, POINTER, FLOAT, LONG, LONG, POINTER, POINTER, INT]
    found.scale.argtypes = [*[POINTER] * 3, LONG, LONG, POINTER, INT]
    found.norm_backward.argtypes = [*[POINTER] * 4, LONG, LONG, POINTER, INT]
    found.turn.argtypes = [POINTER, LONG, POINTER, POINTER, FLOAT, LONG, LONG, LONG, POINTER, INT]
    return found


def use(is_wanted: bool) -> None:
    """Whether this process computes by them, where it can: the last bits of a result depend on it,
    so that a job decides once."""
    global _is_wanted
    _is_wanted = is_wanted


def found_for(*tensors: Tensor) -> ctypes.CDLL | None:
    """The functions, where they can compute with these: rows of fp32 on a CPU."""
    if _is_wanted and all(
        x.dtype == torch.float32 and x.is_cpu and x.stride(-1) == 1 for x in tensors
    ):
        return library()
    return None


def gate(found: ctypes.CDLL, gate_TE: Tensor, up_TE: Tensor) -> Tensor:
    """silu(gate) * up"""
    x_TE = torch.empty(gate_TE.shape)
    found.gate(*_rows(gate_TE), *_rows(up_TE), *x_TE.shape, x_TE.data_ptr(), _num_threads())
    return x_TE


def gate_backward(
    found: ctypes.CDLL, gate_TE: Tensor, up_TE: Tensor, of_x_TE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x = silu(gate) * up once more, and the gradients of gate and, where `of_x` was, of up."""
    x_TE, of_gate_TE = torch.empty(gate_TE.shape), torch.empty(gate_TE.shape)
    results = (each.data_ptr() for each in (of_x_TE, x_TE, of_gate_TE))
    found.gate_backward(*_rows(gate_TE), *_rows(up_TE), *x_TE.shape, *results, _num_threads())
    return x_TE, of_gate_TE, of_x_TE


def norm(found: ctypes.CDLL, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x * factor * weight, and the factor of each row, 1 / sqrt(mean(x^2) + eps)."""
    x = x.contiguous()
    y, factors = torch.empty_like(x), x.new_empty(*x.shape[:-1], 1)
    results = y.data_ptr(), factors.data_ptr()
    found.norm(x.data_ptr(), weight.data_ptr(), eps, *_sizes(x), *results, _num_threads())
    return y, factors


def scaled(found: ctypes.CDLL, x: Tensor, factors: Tensor, weight: Tensor) -> Tensor:
    """x * factor * weight"""
    x = x.contiguous()
    y = torch.empty_like(x)
    given = (each.data_ptr() for each in (x, factors, weight))
    found.scale(*given, *_sizes(x), y.data_ptr(), _num_threads())
    return y


def norm_backward(
    found: ctypes.CDLL, x: Tensor, weight: Tensor, factors: Tensor, toward: Tensor
) -> Tensor:
    """The gradient of x."""
    x, toward = x.contiguous(), toward.contiguous()
    of_x = torch.empty_like(x)
    given = (each.data_ptr() for each in (x, weight, factors, toward))
    found.norm_backward(*given, *_sizes(x), of_x.data_ptr(), _num_threads())
    return of_x


def turned(
    found: ctypes.CDLL, x_BTHD: Tensor, cos_BT1D: Tensor, sin_BT1D: Tensor, sign: int
) -> Tensor:
    """The heads turned, by sign -1 back again."""
    x_BTHD = x_BTHD.contiguous()
    y_BTHD = torch.empty_like(x_BTHD)
    num, size = x_BTHD.shape[-2:]
    # Rows of a batch may have their positions in common.
    shape = *x_BTHD.shape[:-2], 1, size
    cos, sin = (each.expand(shape).contiguous() for each in (cos_BT1D, sin_BT1D))
    num_rows = x_BTHD.numel() // (num * size)
    found.turn(
        x_BTHD.data_ptr(),
        num * size,
        cos.data_ptr(),
        sin.data_ptr(),
        sign,
        num_rows,
        num,
        size,
        y_BTHD.data_ptr(),
        _num_threads(),
    )
    return y_BTHD


def _rows(x_TE: Tensor) -> tuple[int, int]:
    return x_TE.data_ptr(), x_TE.stride(0)


def _sizes(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[-1], x.shape[-1]


def _num_threads() -> int:
    return torch.get_num_threads()
