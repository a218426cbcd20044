"""The layers of a frozen decoder in one call of C (`decoder.c`), where all their parts are in C.

The parts are those of `native.py`, in the order in which the decoder calls them one by one, so the
bits are the same.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tunesmith.model.decoder import Block, Turns
from tunesmith.model.families import DecoderConfig
from tunesmith.model.native import HEADS, NativeRows, Reading, words
from tunesmith.model.products import NativeProduct, Product
from tunesmith.model.shapes import linear_shapes

NO_WINDOW = sys.maxsize


@runtime_checkable
class ReadsNatively(Protocol):
    """The `Attention` of a pass over keys and values that are stored in fp32."""

    reading: Reading | None
    """None where torch reads them."""

    def storage(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, as `Reading` takes them."""
        ...


class NativeLayers:
    """The layers `blocks` with their `norms` and `products`, which are to be `joinable`."""

    def __init__(
        self,
        native: ctypes.CDLL,
        config: DecoderConfig,
        blocks: Sequence[Block],
        norms: Mapping[str, Tensor],
        products: Mapping[tuple[str, ...], Product],
    ) -> None:
        self._native, self._config, self._blocks = native, config, blocks
        self._groups = [names for block in blocks for names in linears_of(block)]
        # What the addresses are of has to stay.
        self._norms, self._products = norms, products
        self._layers = words(
            word
            for block in blocks
            for word in (
                *(norms[name].data_ptr() for name in block.norms),
                *(word for names in linears_of(block) for word in _linear(products[names])),
                *(norms[name].data_ptr() for name in block.qk_norms or ()),
                *(() if block.qk_norms else (0, 0)),
                block.rope is not None,
                block.rule.window or NO_WINDOW,
            )
        )
        shapes = linear_shapes(config)
        parts = [[shapes[name][0] for name in names] for names in self._groups[:4]]
        self._parts = words(map(len, parts)), [words(outputs) for outputs in parts]
        self._widest = max(map(sum, parts))
        self._inner = max(config.intermediate_size, config.num_heads * config.head_dim)

    def __call__(
        self,
        x_NE: Tensor,
        num_layers: int,
        turns: Turns,
        attention: ReadsNatively,
        rows: NativeRows | None,
    ) -> Tensor:
        """What the first layers make of hidden states, in a copy."""
        c, rule = self._config, self._blocks[0].rule
        reading, num_threads = attention.reading, torch.get_num_threads()
        assert reading is not None
        [(cos, sin)] = turns.values()
        x_NE = x_NE.clone(memory_format=torch.contiguous_format)
        N, E = x_NE.shape
        storage = [attention.storage(layer) for layer in range(num_layers)]
        sizes = [N * each for each in (E, self._widest, self._inner, max(E, self._inner))]
        space = [x_NE.new_empty(size) for size in (*sizes, num_threads * HEADS * reading.room)]
        self._native.layers(
            self._layers,
            num_layers,
            None if rows is None else rows.of_layers(self._groups, *self._parts),
            x_NE.data_ptr(),
            N,
            E,
            c.norm_eps,
            c.num_heads,
            c.num_kv_heads,
            c.head_dim,
            rule.factor(c.head_dim),
            cos.data_ptr(),
            sin.data_ptr(),
            cos.stride(-3),
            reading.rows,
            reading.places,
            words(keys.data_ptr() for keys, _ in storage),
            words(values.data_ptr() for _, values in storage),
            storage[0][0].shape[1],
            *(each.data_ptr() for each in space),
            reading.room,
            num_threads,
        )
        return x_NE


def linears_of(block: Block) -> tuple[tuple[str, ...], ...]:
    """Those with one input together, in the order of their use."""
    return block.queries, block.out, block.gates, block.down


def joinable(
    config: DecoderConfig, blocks: Sequence[Block], products: Mapping[tuple[str, ...], Product]
) -> bool:
    """Whether `NativeLayers` can compute them: every product native, all heads that are turned
    turned whole and by one rule, and nothing that only Gemma has."""
    ropes = {block.rope for block in blocks if block.rope is not None}
    return (
        all(isinstance(products[n], NativeProduct) for block in blocks for n in linears_of(block))
        and not config.post_norms
        and config.activation == "silu"
        and [rope.share for rope in ropes] == [1]
    )


def _linear(product: Product) -> tuple[int, int, int, int]:
    assert isinstance(product, NativeProduct)
    num_outputs, num_inputs = product.shape
    bias = 0 if product.bias is None else product.bias.data_ptr()
    return product.address, bias, num_inputs, num_outputs
