"""A decoder whose weights will not change, laid out for the processor that serves it.

Linears that share an input become one product, which spares calls. Large ones are kept in oneDNN's
packed layout: twice as fast for a few rows, where the plain product lays the weight out anew in
every call. The operators for it are torch's own (its compiler uses them) but private, so they are
tried on each shape before they are used; where one is missing or wrong, the plain product stays,
with a warning, and `products` tells.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.decoder import Decoder
from tunesmith.model.families import DecoderConfig
from tunesmith.model.load import CausalModel
from tunesmith.model.shapes import EMBEDDING, HEAD, linear_shapes

log = logging.getLogger(__name__)

# Smaller weights stay in the cache in any layout, and the call itself costs more.
WORTHWHILE = 1 << 19
# What the layout is chosen for: a batch of decoding rows.
TYPICAL_ROWS = 8
PROBED_ROWS = (1, 2, 8, 33)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Product:
    """Several linears as one."""

    weight: Tensor
    """(sum of outputs, inputs), or that packed."""
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
        product = self.products[names]
        if product.is_packed:
            y_BTO = multiply(x_BTE, product.weight, product.bias)
        else:
            y_BTO = F.linear(x_BTE, product.weight, product.bias)
        return (y_BTO,) if len(names) == 1 else torch.split(y_BTO, product.sizes, -1)

    def _fuse(self, weights: dict[str, Tensor], names: tuple[str, ...]) -> Product:
        is_tied = f"{names[0]}.weight" == EMBEDDING
        parts = [weights[EMBEDDING] if is_tied else weights.pop(f"{name}.weight") for name in names]
        biases = [weights.pop(f"{name}.bias", None) for name in names]
        weight = parts[0] if len(parts) == 1 else torch.cat(parts)
        bias = None
        if any(each is not None for each in biases):
            filled = zip(biases, parts, strict=True)
            bias = torch.cat([part.new_zeros(len(part)) if b is None else b for b, part in filled])
        is_packed = weight.numel() >= WORTHWHILE and self._works(weight)
        sizes = [len(part) for part in parts]
        return Product(packed(weight) if is_packed else weight, bias, sizes, is_packed)

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
        weight = product.weight.to_dense() if product.is_packed else product.weight
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
        products = linears.products.values()
        self.products = "packed" if any(each.is_packed for each in products) else "plain"
        tensors = [weights[name] for name in weights if name.endswith("norm.weight")]
        tensors += [weights[EMBEDDING], *(each.weight for each in products)]
        # A tied embedding that is not packed is its head, too.
        self._num_bytes = sum({id(each): each.nbytes for each in tensors}.values())

    @property
    def num_bytes(self) -> int:
        """Memory of the weights; of a tied embedding in both its layouts."""
        return self._num_bytes


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
    together = dict.fromkeys(config.attention_inputs, config.attention_inputs)
    together |= dict.fromkeys(config.mlp_inputs, config.mlp_inputs)
    for name in linear_shapes(config):
        block, _, part = name.rpartition(".")
        parts = together.get(part, (part,))
        if part == parts[0]:
            yield tuple(f"{block}.{each}" for each in parts)
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
