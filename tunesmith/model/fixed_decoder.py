"""A decoder whose linears and head are kept in fixed point (`fixed.py`), for training beside it.

Of what is stored nothing is copied but embedding, norms and biases; pages of weights that were read
to be converted are given back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tunesmith.model.decoder import Decoder, PlainLinears
from tunesmith.model.families import DecoderConfig
from tunesmith.model.fixed import FixedRows, FixedWeight
from tunesmith.model.memory import give_back
from tunesmith.model.shapes import EMBEDDING, HEAD


class WideWeights(Mapping[str, Tensor]):
    """Stored weights by name, in fp32: some are widened each time they are asked for."""

    def __init__(self, stored: Mapping[str, Tensor], seldom: Collection[str]) -> None:
        self.kept = {name: w if name in seldom else w.float() for name, w in stored.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.kept[name].float()

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


class FixedLinears(PlainLinears):
    """Products with weights in fixed point, by the names of their linears."""

    def __init__(self, weights: WideWeights, fixed: Mapping[str, FixedWeight]) -> None:
        super().__init__(weights)
        self.fixed = fixed

    def factor(self, name: str) -> FixedWeight:
        return self.fixed[name]

    def __call__(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        x_TE, shape = x_BTE.flatten(0, -2), (*x_BTE.shape[:-1], -1)
        if torch.is_grad_enabled() and x_TE.requires_grad:
            found = [_Product.apply(x_TE, self.fixed[name], self.bias(name)) for name in names]  # type: ignore[no-untyped-call]
        else:
            rows = FixedRows(x_TE)
            found = [self.fixed[name].product(rows, self.bias(name)) for name in names]
        return tuple(y_TF.view(shape) for y_TF in found)


class FixedDecoder(Decoder):
    """Over weights as they are stored."""

    def __init__(self, config: DecoderConfig, stored: Mapping[str, Tensor]) -> None:
        head_name = EMBEDDING if config.tie_embeddings else HEAD
        seldom = {name for name in stored if name.endswith("_proj.weight") or name == HEAD}
        weights = WideWeights(stored, seldom)
        fixed = {}
        for name in stored:
            if name in seldom or name == head_name:
                fixed[name.removesuffix(".weight")] = FixedWeight.of(stored[name])
                give_back(stored[name])
        super().__init__(config, weights, FixedLinears(weights, fixed))
        self._head = weights.kept[head_name]
        self.fixed_head = fixed[head_name.removesuffix(".weight")]
        self._kept = [each for name, each in weights.kept.items() if name not in seldom]
        self._num_bytes = sum(each.num_bytes for each in fixed.values())
        self._num_bytes += sum(each.nbytes for each in self._kept)

    @property
    def num_bytes(self) -> int:
        """Memory of the weights, mapped pages included."""
        return self._num_bytes

    @property
    def head(self) -> Tensor:
        """(V, E), as it is stored."""
        return self._head

    @property
    def kept_weights(self) -> Collection[Tensor]:
        return self._kept


class _Product(Function):
    """x W^T + bias, keeping neither W nor x: what is frozen has no gradient."""

    @staticmethod
    def forward(ctx: Any, x_TE: Tensor, weight: FixedWeight, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return weight.product(FixedRows(x_TE), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_x_TE = torch.zeros(len(gradients[0]), ctx.weight.shape[1])
        ctx.weight.add_back_(of_x_TE, gradients[0])
        return of_x_TE, None, None
