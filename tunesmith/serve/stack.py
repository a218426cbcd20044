"""Different adapters for the few rows of a pass of single tokens, in two products a linear.

The adapters' matrices lie one behind the other along the rank; a mask leaves each row its own part.
The zeros are computed, too, so it is for few rows: there the number of products is what costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.decoder import Linears
from tunesmith.model.lora import Adapter

# More rows than this are computed adapter by adapter (`AdapterBatch`).
MAX_ROWS = 64


class AdapterStack:
    """The matrices of some adapters, stacked as the linears are first used."""

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self._adapters = list(adapters)
        self._stacked: dict[tuple[str, ...], tuple[Tensor, list[Tensor]]] = {}

    def holds(self, adapters: Sequence[Adapter | None]) -> bool:
        return all(adapter is None or adapter in self._adapters for adapter in adapters)

    def rows(self, adapters: Sequence[Adapter | None]) -> StackedRows:
        """The update for rows with these adapters."""
        return StackedRows(self, adapters)

    def mask(self, adapters: Sequence[Adapter | None]) -> Tensor:
        """(rows, sum of ranks): the scale at each row's own adapter, else 0."""
        parts = [
            [
                scale
                for each in self._adapters
                for scale in [each.spec.scale if each is adapter else 0.0] * each.spec.rank
            ]
            for adapter in adapters
        ]
        return torch.tensor(parts)

    def matrices(
        self, names: tuple[str, ...], inputs: int, outputs: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """A of all names and adapters, (names x ranks, inputs); B^T of each, (ranks, outputs)."""
        if names not in self._stacked:
            like = outputs[0]
            a = [
                each.a.get(name, like.new_zeros(each.spec.rank, inputs))
                for name in names
                for each in self._adapters
            ]
            b = [
                torch.cat(
                    [
                        each.b.get(name, like.new_zeros(output.shape[-1], each.spec.rank))
                        for each in self._adapters
                    ],
                    dim=1,
                ).T.contiguous()
                for name, output in zip(names, outputs, strict=True)
            ]
            self._stacked[names] = torch.cat(a), b
        return self._stacked[names]


class StackedRows:
    """The `LowRankUpdate` of one pass."""

    def __init__(self, stack: AdapterStack, adapters: Sequence[Adapter | None]) -> None:
        self._stack = stack
        self._mask_BR = stack.mask(adapters)

    def adapt(self, names: tuple[str, ...], x: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x (B, 1, E), each with its rows' updates."""
        outputs = products(names, x)
        a, b = self._stack.matrices(names, x.shape[-1], outputs)
        if self._mask_BR.dtype != x.dtype or self._mask_BR.device != x.device:
            self._mask_BR = self._mask_BR.to(x)
        narrow_BGR = F.linear(x.flatten(0, 1), a).view(len(x), len(names), -1)
        narrow_BGR = narrow_BGR * self._mask_BR[:, None]
        return tuple(
            torch.addmm(output.flatten(0, 1), narrow_BGR[:, place], b[place]).view(output.shape)
            for place, output in enumerate(outputs)
        )


def stackable(adapters: Sequence[Adapter | None]) -> bool:
    """Whether stacking pays, and can be done: DoRA stretches what it gets, so not with it."""
    different = {id(adapter): adapter for adapter in adapters if adapter is not None}
    plain = all(not adapter.magnitude for adapter in different.values())
    return len(different) > 1 and len(adapters) <= MAX_ROWS and plain
