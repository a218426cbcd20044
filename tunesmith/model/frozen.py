"""A decoder whose weights will not change, laid out for the processor that serves it.

Linears that share an input become one product, which spares calls; `products.py` tells how their
weights lie. A row gets the same bits whatever rows are beside it, as products do, if there is one:
so does attention (`attend_steadily`), and what works on each row by itself. That is so in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tunesmith.model import native
from tunesmith.model.attention import Attend, Attention, attend_steadily
from tunesmith.model.decoder import Block, Decoder, LowRankUpdate, Turns, blocks
from tunesmith.model.families import DecoderConfig
from tunesmith.model.load import CausalModel
from tunesmith.model.native import NativeRows
from tunesmith.model.native_layers import NativeLayers, ReadsNatively, joinable
from tunesmith.model.products import TOLERANCE, Layouts, Product
from tunesmith.model.rope_rules import LongScaling
from tunesmith.model.rotation import RotationTable, rotate
from tunesmith.model.shapes import EMBEDDING, HEAD


class FrozenLinears:
    """The products by the names of their linears; takes the weights out of `weights`."""

    def __init__(self, config: DecoderConfig, weights: dict[str, Tensor], layouts: Layouts) -> None:
        self.products: dict[tuple[str, ...], Product] = {}
        self.sizes: dict[tuple[str, ...], list[int]] = {}
        """Outputs of each linear of a product."""
        for names in groups(config):
            self._fuse(weights, names, layouts)

    def __call__(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        y_BTO = self.joint(names, x_BTE)
        return (y_BTO,) if len(names) == 1 else self.parts(names, y_BTO)

    def parts(self, names: tuple[str, ...], y_BTO: Tensor) -> tuple[Tensor, ...]:
        """The output of each linear, as views."""
        return tuple(torch.split_with_sizes(y_BTO, self.sizes[names], -1))

    def joint(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        """The outputs of the linears one behind the other."""
        return self.products[names](x)

    def _fuse(self, weights: dict[str, Tensor], names: tuple[str, ...], layouts: Layouts) -> None:
        is_tied = f"{names[0]}.weight" == EMBEDDING
        parts = [weights[EMBEDDING] if is_tied else weights.pop(f"{name}.weight") for name in names]
        biases = [weights.pop(f"{name}.bias", None) for name in names]
        bias = None
        if any(each is not None for each in biases):
            filled = zip(biases, parts, strict=True)
            bias = torch.cat([part.new_zeros(len(part)) if b is None else b for b, part in filled])
        self.products[names] = layouts.product(torch.cat(parts), bias)
        self.sizes[names] = [len(part) for part in parts]


class FrozenWeights(Mapping[str, Tensor]):
    """The weights by their names; those of a product are read back from it when asked for."""

    def __init__(self, kept: Mapping[str, Tensor], linears: FrozenLinears) -> None:
        self._kept = kept
        self._places: dict[str, tuple[Product, int, int]] = {}
        for names, product in linears.products.items():
            start = 0
            for name, size in zip(names, linears.sizes[names], strict=True):
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
        return product.read()[start:stop]

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
        layouts = {each.layout for each in products}
        self.products = next(
            each for each in ("int8", "native", "packed", "plain") if each in layouts
        )
        kept = [weights[name] for name in weights if name.endswith("norm.weight")]
        kept.append(weights[EMBEDDING])
        self._num_bytes = sum(each.nbytes for each in kept)
        self._num_bytes += sum(each.num_bytes for each in products)
        self._rotations |= {
            rope: RotationTable(rotation)
            for rope, rotation in self._rotations.items()
            if not isinstance(rope.scaling, LongScaling)
        }
        self._in_fp32 = self.dtype == torch.float32
        self.compiled = native.library() if self._in_fp32 else None
        """What computes in C here; None where torch does."""
        names = [name for name in weights if name.endswith("norm.weight")]
        more = 1.0 if config.norms_from_one else 0.0
        self._norms = {name: weights[name].float() + more for name in names}
        self._eps = torch.tensor(config.norm_eps)
        self._joined: NativeLayers | None = None
        if self.compiled is not None and joinable(config, self._blocks, linears.products):
            self._joined = NativeLayers(
                self.compiled, config, self._blocks, self._norms, linears.products
            )

    @property
    def num_bytes(self) -> int:
        """Memory of the weights; of a tied embedding in both its layouts."""
        return self._num_bytes

    @property
    def attend(self) -> Attend:
        return attend_steadily if self._in_fp32 else super().attend

    def _through(
        self,
        blocks: Sequence[Block],
        x: Tensor,
        turns: Turns,
        attention: Attention,
        lora: LowRankUpdate | None,
        recompute: bool,
        places_N: Tensor | None,
    ) -> Tensor:
        """All layers of which every position is wanted are one call, if they can be."""
        if (
            self._joined is not None
            and isinstance(attention, ReadsNatively)
            and attention.reading is not None
            and isinstance(lora, NativeRows | None)
        ):
            num = len(blocks) - (places_N is not None)
            # A single position comes twice, which is of no use here.
            x_NE = x.flatten(0, -2)[: len(attention.reading.rows)]
            x = self._joined(x_NE, num, turns, attention, lora).expand(x.shape)
            blocks = blocks[num:]
        return super()._through(blocks, x, turns, attention, lora, recompute, places_N)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        if not self._in_fp32:
            return super()._norm(name, x)
        if self.compiled is not None:
            return native.norm(self.compiled, x, self._norms[name], self.config.norm_eps)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factor = torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * factor).mul_(self._norms[name])

    def _heads(
        self, block: Block, x: Tensor, turns: Turns, lora: LowRankUpdate | None
    ) -> tuple[Tensor, ...]:
        """Queries and keys are turned together."""
        c = self.config
        if block.rope is None or (block.qk_norms is not None and self.compiled is None):
            return super()._heads(block, x, turns, lora)
        y = self._joint(block.queries, x, lora)
        y = y.view(*y.shape[:-1], -1, c.head_dim)
        if block.qk_norms is not None and self.compiled is not None:
            q, k, _ = torch.split_with_sizes(y, [c.num_heads, *[c.num_kv_heads] * 2], -2)
            for name, heads in zip(block.qk_norms, (q, k), strict=True):
                native.norm_heads(self.compiled, heads, self._norms[name], c.norm_eps)
        cos, sin = turns[block.rope]
        # Of all dimensions of a head, and for each position its own.
        is_plain = cos.shape == (*y.shape[:-2], 1, c.head_dim)
        if self.compiled is not None and is_plain:
            native.turn_heads(self.compiled, y, c.num_heads + c.num_kv_heads, cos, sin)
            q, k, v = torch.split_with_sizes(y, [c.num_heads, *[c.num_kv_heads] * 2], -2)
            return q, k, v
        qk, v = torch.split_with_sizes(y, [c.num_heads + c.num_kv_heads, c.num_kv_heads], -2)
        qk = rotate(qk, cos, sin)
        q, k = torch.split_with_sizes(qk, [c.num_heads, c.num_kv_heads], -2)
        return q, k, v

    def _mlp(self, block: Block, x_BTE: Tensor, lora: LowRankUpdate | None) -> Tensor:
        if self.compiled is None or self.config.activation != "silu":
            return super()._mlp(block, x_BTE, lora)
        inner = native.gated(self.compiled, self._joint(block.gates, x_BTE, lora))
        return self._joint(block.down, inner, lora)

    def _joint(self, names: tuple[str, ...], x: Tensor, lora: LowRankUpdate | None) -> Tensor:
        y = self._linears.joint(names, x)
        if lora is None:
            return y
        parts = self._linears.parts(names, y)
        adapted = lora.adapt(names, x, lambda *_: parts)
        in_place = all(new is old for new, old in zip(adapted, parts, strict=True))
        return y if in_place else torch.cat(adapted, -1)


def freeze(model: CausalModel, *, int8: bool = False, in_fp32: bool = False) -> CausalModel:
    """The same model for serving on this processor; elsewhere, or in four bits, as it is.

    With `int8` large products are of 8 bits, everything else in fp32. With `in_fp32` weights of
    bf16 stay what they are where that is possible, and everything is computed in fp32.
    """
    # Not those that compute otherwise (`Nf4Decoder`).
    if not isinstance(model, Decoder) or type(model) is not Decoder:
        return model
    in_fp32 = in_fp32 or int8
    if model.device.type != "cpu" or (model.dtype not in TOLERANCE and not in_fp32):
        return model
    kept = dict(model.weights)
    linears = FrozenLinears(model.config, kept, Layouts(int8=int8, in_fp32=in_fp32))
    if in_fp32:
        kept = {name: each.float() for name, each in kept.items()}
    return FrozenDecoder(model.config, FrozenWeights(kept, linears), linears)


def groups(config: DecoderConfig) -> Iterator[tuple[str, ...]]:
    """The linears that the decoder asks for at once, and the head."""
    for block in blocks(config):
        yield from (block.queries, block.out, block.gates, block.down)
    head = EMBEDDING if config.tie_embeddings else HEAD
    yield (head.removesuffix(".weight"),)
