"""Frozen weights in fixed point: integers of 16 bits, with which processors that have AVX-512 VNNI,
but nothing for bf16, multiply twice as fast as with fp32 (`fixed.c`).

A row of a weight has one factor, a row that is multiplied with it one for each block of 256
numbers; sums within a block are exact. Relative to the lengths of its factors a product is off by
0.00015, and a gradient by 0.0003, or 0.004 where some inputs weigh ten thousand times as much as
others; bf16 is off by 0.002 always. What is learned stays fp32, and so does all between the
products.

Shape suffixes: T positions, E inputs, F outputs.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tunesmith.model import learning
from tunesmith.model.compiler import INT, LONG, POINTER

# As in fixed.c.
BLOCK = 256
# Of a weight that is converted at once.
AT_ONCE = 1 << 22


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, where they are of use to this processor."""
    found = learning.library()
    if found is None or not found.multiplies_fixed():
        return None
    found.fix_rows.argtypes = [POINTER, *[LONG] * 3, *[POINTER] * 4, INT]
    found.fix_weight.argtypes = [POINTER, LONG, LONG, *[POINTER] * 3, INT]
    of_factors: list[Any] = [POINTER, POINTER, LONG, POINTER, POINTER, LONG, LONG, INT]
    found.fixed_product.argtypes = [*of_factors, *[POINTER] * 2, LONG, INT]
    for function in ("fix_rows", "fix_weight", "fixed_product"):
        found[function].restype = None
    return found


class FixedRows:
    """Rows (T, size) of fp32 that are multiplied with weights; backwards with the one whose scales
    and bounds are given."""

    def __init__(
        self, x: Tensor, scales: Tensor | None = None, bounds: Tensor | None = None
    ) -> None:
        x = x if x.stride(-1) == 1 else x.contiguous()
        self.num, size = x.shape
        self.numbers = torch.empty(self.num, size + size % 2, dtype=torch.int16)
        self.scales = torch.empty(self.num, -(-size // BLOCK))
        factors = (None if each is None else each.data_ptr() for each in (scales, bounds))
        results = self.numbers.data_ptr(), self.scales.data_ptr()
        sizes = x.stride(0), self.num, size
        _library().fix_rows(x.data_ptr(), *sizes, *factors, *results, torch.get_num_threads())


class FixedWeight:
    """A weight (F, E)."""

    def __init__(self, numbers: Tensor, scales: Tensor, bounds: Tensor) -> None:
        self._numbers, self._scales, self._bounds = numbers, scales, bounds
        self.shape = numbers.shape

    @classmethod
    def of(cls, weight: Tensor) -> FixedWeight:
        """Of a weight in any type."""
        num_outputs, num_inputs = weight.shape
        # One more, because the last of an odd number of inputs is read as a pair.
        numbers = torch.empty(weight.numel() + 1, dtype=torch.int16)[:-1].view(weight.shape)
        scales, bounds = torch.empty(num_outputs), torch.empty(-(-num_outputs // BLOCK))
        size = max(1, AT_ONCE // (num_inputs * BLOCK)) * BLOCK
        for start in range(0, num_outputs, size):
            part = weight[start : start + size].float().contiguous()
            results = numbers[start:], scales[start:], bounds[start // BLOCK :]
            places = (each.data_ptr() for each in results)
            _library().fix_weight(part.data_ptr(), *part.shape, *places, torch.get_num_threads())
        return cls(numbers, scales, bounds)

    @property
    def num_bytes(self) -> int:
        return self._numbers.nbytes + self._scales.nbytes + self._bounds.nbytes

    def part(self, start: int, stop: int) -> FixedWeight:
        """Some of the outputs, from a multiple of BLOCK on."""
        span = slice(start, stop)
        return FixedWeight(self._numbers[span], self._scales[span], self._bounds[start // BLOCK :])

    def product(self, x: FixedRows, bias: Tensor | None = None) -> Tensor:
        """x W^T + bias, (T, F)."""
        y_TF = torch.empty(x.num, self.shape[0])
        self.multiply(x, y_TF, bias)
        return y_TF

    def multiply(self, x: FixedRows, y_TF: Tensor, bias: Tensor | None = None) -> None:
        """The same, written to `y`."""
        self._multiply(x, y_TF, bias, is_backward=False)

    def add_back_(self, of_x_TE: Tensor, toward_TF: Tensor) -> None:
        """Adds toward W to a gradient, for the gradient `toward` of the outputs."""
        rows = FixedRows(toward_TF, self._scales, self._bounds)
        self._multiply(rows, of_x_TE, None, is_backward=True)

    def _multiply(self, x: FixedRows, y: Tensor, bias: Tensor | None, *, is_backward: bool) -> None:
        _library().fixed_product(
            x.numbers.data_ptr(),
            x.scales.data_ptr(),
            x.num,
            self._numbers.data_ptr(),
            self._scales.data_ptr(),
            *self.shape,
            is_backward,
            None if bias is None else bias.data_ptr(),
            y.data_ptr(),
            y.stride(0),
            torch.get_num_threads(),
        )


Factor = Tensor | FixedWeight
"""A frozen weight (F, E)."""


def add_back_(of_x_TE: Tensor, toward_TF: Tensor, weight: Factor) -> None:
    """Adds toward W to a gradient, for the gradient `toward` of the outputs."""
    if isinstance(weight, FixedWeight):
        weight.add_back_(of_x_TE, toward_TF)
    else:
        of_x_TE.addmm_(toward_TF, weight)


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None, "asked for before"
    return found
