"""A frozen linear layer, or several with one input as one, laid out for the processor.

Four layouts. Plain: all outputs of an input side by side, up to twice as fast for a few rows as
the stored order. Packed: oneDNN's own, faster still for large weights. Int8, where it is asked for:
a quarter of the bytes of fp32, which is what a few rows take their time for; each output has a
scale of its own, and each row of the input is rounded to 8 bits on its way. Native: weights of 16
bits, half of the bytes, in products of fp32 (`native.py`).

The operators of packed and int8 are torch's own (its compiler uses them) but private, and those of
native are compiled here, so they are tried on each shape before they are used; where one is missing
or wrong, the next layout is taken, with a warning.

Every product gives a row the same bits whatever rows are beside it, as long as there is one: a
product of a single row is summed in another order, but in native ones, and in int8, where sums are
exact. That is so in fp32, of the libraries that torch brings, not promised by them: tests hold it.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model import native

log = logging.getLogger(__name__)

Layout = Literal["plain", "packed", "native", "int8"]

# Smaller weights gain nothing by being packed: in fp32 plain products are as fast for 8 rows and
# faster for more, in bf16 the call itself costs more than it spares.
WORTHWHILE = {torch.float32: 1 << 22, torch.bfloat16: 1 << 19}
# Smaller weights lie in the processor's caches anyway.
WORTHWHILE_INT8 = 1 << 19
# What the packed layout is chosen for: a batch of decoding rows.
TYPICAL_ROWS = 8
PROBED_ROWS = (1, 2, 8, 33)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
TOLERANCE_INT8 = 3e-2
MAX_INT8 = 127
ZERO_UINT8 = 128
"""Inputs are unsigned: without it the processor has no such product."""


class Product(Protocol):
    layout: Layout
    bias: Tensor | None

    @property
    def num_bytes(self) -> int:
        """Of the weights."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """x W^T + bias, (..., inputs) -> (..., outputs)."""
        ...

    def read(self) -> Tensor:
        """The weights as they are multiplied, (outputs, inputs)."""
        ...


class PlainProduct:
    layout: Layout = "plain"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.T.contiguous()
        self.bias = bias

    @property
    def num_bytes(self) -> int:
        return self._weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return F.linear(x, self._weight.T, self.bias)
        return torch.mm(x, self._weight) if x.dim() == 2 else torch.matmul(x, self._weight)

    def read(self) -> Tensor:
        return self._weight.T


class PackedProduct:
    layout: Layout = "packed"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._packed = packed(weight)
        self.bias = bias

    @property
    def num_bytes(self) -> int:
        return self._packed.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return multiply(x, self._packed, self.bias)

    def read(self) -> Tensor:
        return self._packed.to_dense()


class NativeProduct:
    """Weights of bf16; inputs and outputs are fp32."""

    layout: Layout = "native"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        found = native.library()
        assert found is not None, "without a compiler there are other layouts"
        self._panels = native.Panels(found, weight)
        self.bias = bias
        self.shape = self._panels.shape
        self.address = self._panels.address

    @property
    def num_bytes(self) -> int:
        return self._panels.num_bytes

    def __call__(self, x: Tensor) -> Tensor:
        return self._panels.multiply(x, self.bias)

    def read(self) -> Tensor:
        return self._panels.read().float()


class Int8Product:
    """Weights as 8 bits and a scale for each output; inputs are fp32."""

    layout: Layout = "int8"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.float()
        largest = weight.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny)
        self._scales = largest / MAX_INT8
        rounded = (weight / self._scales[:, None]).round_().to(torch.int8)
        self._packed: Tensor = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = bias

    @property
    def num_bytes(self) -> int:
        return self._packed.nbytes + self._scales.nbytes + self._zeros.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        scales = x.abs().amax(-1, keepdim=True).clamp_(min=1e-30).div_(MAX_INT8)
        rounded = (x / scales).add_(ZERO_UINT8 + 0.5).to(torch.uint8)
        y: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            rounded,
            1.0,
            ZERO_UINT8,
            self._packed,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        y.mul_(scales)
        return y if self.bias is None else y.add_(self.bias)

    def read(self) -> Tensor:
        return self._packed.to_dense().T * self._scales[:, None]


class Layouts:
    """Chooses the layout of each weight; a shape is tried once. With `int8` large ones become so.
    With that or `in_fp32` all inputs and outputs are in fp32."""

    def __init__(self, *, int8: bool, in_fp32: bool) -> None:
        self._in_fp32 = in_fp32 or int8
        self._in_int8 = int8 and torch.cpu._is_vnni_supported()
        self._is_compiled = self._in_fp32 and native.library() is not None
        self._proven: dict[tuple[Layout, tuple[int, ...]], bool] = {}
        if int8 and not self._in_int8:
            log.warning("this processor does not multiply 8 bits: weights are served in fp32")

    def product(self, weight: Tensor, bias: Tensor | None) -> Product:
        num, is_narrow = weight.numel(), weight.dtype == torch.bfloat16 and self._is_compiled
        if self._in_fp32:
            bias = bias if bias is None else bias.float()
        if self._in_int8 and num >= WORTHWHILE_INT8 and self._works(Int8Product, weight):
            return Int8Product(weight, bias)
        if is_narrow and self._works(NativeProduct, weight):
            return NativeProduct(weight, bias)
        weight = weight.float() if self._in_fp32 else weight
        if num >= WORTHWHILE[weight.dtype] and self._works(PackedProduct, weight):
            return PackedProduct(weight, bias)
        return PlainProduct(weight, bias)

    def _works(
        self, kind: type[Int8Product] | type[NativeProduct] | type[PackedProduct], weight: Tensor
    ) -> bool:
        """Whether products of this kind and shape are what plain ones are."""
        shape = kind.layout, tuple(weight.shape)
        if shape not in self._proven:
            plain = weight.float() if self._in_fp32 else weight
            try:
                self._proven[shape] = is_right(kind(weight, None), plain)
            except (RuntimeError, AttributeError, NotImplementedError) as error:
                log.warning("%s products are not available: %s", kind.layout, error)
                self._proven[shape] = False
        return self._proven[shape]


def is_right(product: Product, weight: Tensor) -> bool:
    """Whether a product is the plain one, for several numbers of rows."""
    rows = torch.ones(max(PROBED_ROWS), weight.shape[1], dtype=weight.dtype)
    rows *= torch.linspace(-1, 1, weight.shape[1]).to(weight.dtype)
    plain = F.linear(rows, weight)
    tolerance = TOLERANCE_INT8 if product.layout == "int8" else TOLERANCE[weight.dtype]
    allowed = tolerance * max(float(plain.abs().max()), 1e-6)
    for number in PROBED_ROWS:
        if not float((product(rows[:number]) - plain[:number]).abs().max()) <= allowed:
            shape = tuple(weight.shape)
            log.warning("%s products of %s are wrong and not used", product.layout, shape)
            return False
    return True


def packed(weight: Tensor) -> Tensor:
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TYPICAL_ROWS)
    return laid_out


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias, of a packed weight."""
    ops: Any = torch.ops.mkldnn
    y: Tensor = ops._linear_pointwise.default(x, weight, bias, "none", [], "")
    return y
