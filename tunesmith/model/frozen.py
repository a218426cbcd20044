"""A decoder whose weights will not change, laid out for the processor that serves it.

Linears that share an input become one product, which spares calls. Their weights lie with all
outputs of an input side by side: up to twice as fast for a few rows as the stored layout. Large
ones are kept in oneDNN's packed layout, faster still. The operators for it are torch's own (its
compiler uses them) but private, so they are tried on each shape before they are used; where one is
missing or wrong, the plain product stays, with a warning, and `products` tells.

Both kinds of product give a row the same bits whatever rows are beside it, as long as there is one:
a product of a single row is summed in another order. So is attention (`attend_steadily`), and what
works on each row by itself. That is so in fp32, of the libraries that torch brings, not promised by
them: tests hold it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.attention import Attend, attend_steadily
from tunesmith.model.decoder import Block, Decoder, LowRankUpdate, Turns, blocks
from tunesmith.model.families import DecoderConfig
from tunesmith.model.load import CausalModel
from tunesmith.model.rope_rules import LongScaling
from tunesmith.model.rotation import RotationTable, rotate
from tunesmith.model.shapes import EMBEDDING, HEAD

log = logging.getLogger(__name__)

# Smaller weights gain nothing by being packed: in fp32 plain products are as fast for 8 rows and
# faster for more, in bf16 the call itself costs more than it spares.
WORTHWHILE = {torch.float32: 1 << 22, torch.bfloat16: 1 << 19}
# What the layout is chosen for: a batch of decoding rows.
TYPICAL_ROWS = 8
PROBED_ROWS = (1, 2, 8, 33)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Product:
    """Several linears as one."""

    weight: Tensor
    """(inputs, sum of outputs), or that packed."""
    bias: Tensor | None
    sizes: list[int]
    """Outputs of each."""
    is_packed: bool


class FrozenLinears:
    """The products by the names of their linears; takes the weights out of `weights`."""

    def __init__(self, config: DecoderConfig, weights: dict[str, Tensor]) -> None:
        self.products: dict[tuple[str, ...], Product] = {}
        self._proven: dict[tuple[int, ...], bool] = {}
        for names in groups(config):
            self.products[names] = self._fuse(weights, names)

    def __call__(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        y_BTO = self.joint(names, x_BTE)
        return (y_BTO,) if len(names) == 1 else self.parts(names, y_BTO)

    def parts(self, names: tuple[str, ...], y_BTO: Tensor) -> tuple[Tensor, ...]:
        """The output of each linear, as views."""
        return tuple(torch.split_with_sizes(y_BTO, self.products[names].sizes, -1))

    def joint(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        """The outputs of the linears one behind the other."""
        product = self.products[names]
        if product.is_packed:
            return multiply(x, product.weight, product.bias)
        if product.bias is not None:
            return F.linear(x, product.weight.T, product.bias)
        return torch.mm(x, product.weight) if x.dim() == 2 else torch.matmul(x, product.weight)

    def _fuse(self, weights: dict[str, Tensor], names: tuple[str, ...]) -> Product:
        is_tied = f"{names[0]}.weight" == EMBEDDING
        parts = [weights[EMBEDDING] if is_tied else weights.pop(f"{name}.weight") for name in names]
        biases = [weights.pop(f"{name}.bias", None) for name in names]
        weight = torch.cat(parts)
        bias = None
        if any(each is not None for each in biases):
            filled = zip(biases, parts, strict=True)
            bias = torch.cat([part.new_zeros(len(part)) if b is None else b for b, part in filled])
        is_packed = weight.numel() >= WORTHWHILE[weight.dtype] and self._works(weight)
        laid_out = packed(weight) if is_packed else weight.T.contiguous()
        return Product(laid_out, bias, [len(part) for part in parts], is_packed)

    def _works(self, weight: Tensor) -> bool:
        """Whether packed products of this shape are what plain ones are."""
        shape = tuple(weight.shape)
        if shape not in self._proven:
            try:
                self._proven[shape] = is_right(weight)
            except (RuntimeError, AttributeError, NotImplementedError) as error:
                log.warning("packed products are not available, plain ones are used: %s", error)
                self._proven[shape] = False
        return self._proven[shape]


class FrozenWeights(Mapping[str, Tensor]):
    """The weights by their names; those of a product are read back from it when asked for."""

    def __init__(self, kept: Mapping[str, Tensor], linears: FrozenLinears) -> None:
        self._kept = kept
        self._places: dict[str, tuple[Product, int, int]] = {}
        for names, product in linears.products.items():
            start = 0
            for name, size in zip(names, product.sizes, strict=True):
                self._places[name] = product, start, start + size
                start += size

    def __getitem__(self, key: str) -> Tensor:
        if key in self._kept:
            return self._kept[key]
        name, _, kind = key.rpartition(".")
        product, start, stop = self._places[name]
        if kind == "bias":
            if product.bias is None:
                raise KeyError(key)
            return product.bias[start:stop]
        weight = product.weight.to_dense() if product.is_packed else product.weight.T
        return weight[start:stop]

    def __iter__(self) -> Iterator[str]:
        yield from self._kept
        yield from (
            name for name in map("{}.weight".format, self._places) if name not in self._kept
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


class FrozenDecoder(Decoder):
    """Made by `freeze`."""

    def __init__(
        self, config: DecoderConfig, weights: Mapping[str, Tensor], linears: FrozenLinears
    ) -> None:
        super().__init__(config, weights, linears)
        self._linears = linears
        products = linears.products.values()
        self.products = "packed" if any(each.is_packed for each in products) else "plain"
        tensors = [weights[name] for name in weights if name.endswith("norm.weight")]
        tensors += [weights[EMBEDDING], *(each.weight for each in products)]
        # A tied embedding that is not packed is its head, too.
        self._num_bytes = sum({id(each): each.nbytes for each in tensors}.values())
        self._rotations |= {
            rope: RotationTable(rotation)
            for rope, rotation in self._rotations.items()
            if not isinstance(rope.scaling, LongScaling)
        }
        self._in_fp32 = self.dtype == torch.float32
        names = [name for name in weights if name.endswith("norm.weight")]
        more = 1.0 if config.norms_from_one else 0.0
        self._norms = {name: weights[name].float() + more for name in names}
        self._eps = torch.tensor(config.norm_eps)

    @property
    def num_bytes(self) -> int:
        """Memory of the weights; of a tied embedding in both its layouts."""
        return self._num_bytes

    @property
    def attend(self) -> Attend:
        return attend_steadily if self._in_fp32 else super().attend

    def _norm(self, name: str, x: Tensor) -> Tensor:
        if not self._in_fp32:
            return super()._norm(name, x)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factor = torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * factor).mul_(self._norms[name])

    def _heads(
        self, block: Block, x: Tensor, turns: Turns, lora: LowRankUpdate | None
    ) -> tuple[Tensor, ...]:
        """Queries and keys are turned together."""
        c = self.config
        if block.qk_norms is not None or block.rope is None:
            return super()._heads(block, x, turns, lora)
        y = self._joint(block.queries, x, lora)
        y = y.view(*y.shape[:-1], -1, c.head_dim)
        qk, v = torch.split_with_sizes(y, [c.num_heads + c.num_kv_heads, c.num_kv_heads], -2)
        qk = rotate(qk, *turns[block.rope])
        q, k = torch.split_with_sizes(qk, [c.num_heads, c.num_kv_heads], -2)
        return q, k, v

    def _joint(self, names: tuple[str, ...], x: Tensor, lora: LowRankUpdate | None) -> Tensor:
        y = self._linears.joint(names, x)
        if lora is None:
            return y
        parts = self._linears.parts(names, y)
        adapted = lora.adapt(names, x, lambda *_: parts)
        in_place = all(new is old for new, old in zip(adapted, parts, strict=True))
        return y if in_place else torch.cat(adapted, -1)


def freeze(model: CausalModel) -> CausalModel:
    """The same model for serving on this processor; elsewhere, or in four bits, as it is."""
    # Not those that compute otherwise (`Nf4Decoder`).
    if not isinstance(model, Decoder) or type(model) is not Decoder:
        return model
    if model.device.type != "cpu" or model.dtype not in TOLERANCE:
        return model
    kept = dict(model.weights)
    linears = FrozenLinears(model.config, kept)
    return FrozenDecoder(model.config, FrozenWeights(kept, linears), linears)


def groups(config: DecoderConfig) -> Iterator[tuple[str, ...]]:
    """The linears that the decoder asks for at once, and the head."""
    for block in blocks(config):
        yield from (block.queries, block.out, block.gates, block.down)
    head = EMBEDDING if config.tie_embeddings else HEAD
    yield (head.removesuffix(".weight"),)


def is_right(weight: Tensor) -> bool:
    """Whether the packed product of a weight is the plain one, for several numbers of rows."""
    rows = torch.ones(max(PROBED_ROWS), weight.shape[1], dtype=weight.dtype)
    rows *= torch.linspace(-1, 1, weight.shape[1]).to(weight.dtype)
    plain, laid_out = F.linear(rows, weight), packed(weight)
    allowed = TOLERANCE[weight.dtype] * max(float(plain.abs().max()), 1e-6)
    for number in PROBED_ROWS:
        found = multiply(rows[:number], laid_out, None)
        if not float((found - plain[:number]).abs().max()) <= allowed:
            log.warning("packed products of %s are wrong, plain ones are used", tuple(weight.shape))
            return False
    return True


def packed(weight: Tensor) -> Tensor:
    laid_out: Tensor = _ops()._reorder_linear_weight(weight.contiguous(), TYPICAL_ROWS)
    return laid_out


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias, of a packed weight."""
    y: Tensor = _ops()._linear_pointwise.default(x, weight, bias, "none", [], "")
    return y


def _ops() -> Any:
    return torch.ops.mkldnn
