"""Different adapters for the few rows of a pass of single tokens, in two products a linear.

The adapters' matrices lie one behind the other along the rank; a mask leaves each row its own part.
The zeros are computed, too, so it is for few rows: there the number of products is what costs. They
change no bit of a row: a single adapter is computed in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith.model.decoder import Linears
from tunesmith.model.lora import Adapter

# More rows than this, or longer sums, are computed adapter by adapter (`AdapterBatch`).
MAX_ROWS = 64
MAX_RANKS = 384
# A stack of so many times the adapters in use is made anew.
WASTEFUL = 2

Matrices = tuple[Tensor, list[Tensor]]


class AdapterStack:
    """The matrices of some adapters, stacked as the linears are first used."""

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self._adapters = list(adapters)
        self._stacked: dict[tuple[str, ...], Matrices] = {}
        self._last: tuple[list[Adapter | None], StackedRows] | None = None

    def suits(self, adapters: Sequence[Adapter]) -> bool:
        """Whether it holds these adapters, and few besides."""
        is_small = len(self._adapters) <= WASTEFUL * len(adapters)
        return is_small and set(adapters).issubset(self._adapters)

    def rows(self, adapters: Sequence[Adapter | None]) -> StackedRows:
        """The update for rows with these adapters."""
        # From step to step they are mostly the same.
        if self._last is None or self._last[0] != adapters:
            self._last = list(adapters), StackedRows(self, adapters)
        return self._last[1]

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

    def matrices(self, names: tuple[str, ...], inputs: int, outputs: Sequence[Tensor]) -> Matrices:
        """A^T of all names and adapters, (inputs, names x ranks); B^T of each, (ranks, outputs)."""
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
                        each.b.get(name, like.new_zeros(output.shape[-1], each.spec.rank)).T
                        for each in self._adapters
                    ]
                )
                for name, output in zip(names, outputs, strict=True)
            ]
            self._stacked[names] = torch.cat([each.T for each in a], dim=1), b
        return self._stacked[names]


class StackedRows:
    """The `LowRankUpdate` of one pass."""

    def __init__(self, stack: AdapterStack, adapters: Sequence[Adapter | None]) -> None:
        self._stack = stack
        self._mask_BR = stack.mask(adapters)
        self._masks: dict[int, Tensor] = {}

    def adapt(self, names: tuple[str, ...], x_BTE: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its rows' updates."""
        outputs = products(names, x_BTE)
        a, b = self._stack.matrices(names, x_BTE.shape[-1], outputs)
        if len(names) not in self._masks:
            self._masks[len(names)] = self._mask_BR.to(x_BTE).repeat(1, len(names))
        narrow_BR = torch.mm(x_BTE, a).mul_(self._masks[len(names)])
        parts = torch.split_with_sizes(narrow_BR, [len(each) for each in b], 1)
        return tuple(
            output.addmm_(part, each) for output, part, each in zip(outputs, parts, b, strict=True)
        )


def stackable(adapters: Sequence[Adapter], num_rows: int) -> bool:
    """Whether stacking pays, and can be done: DoRA stretches what it gets, so not with it."""
    num_ranks = sum(adapter.spec.rank for adapter in adapters)
    is_small = num_rows <= MAX_ROWS and num_ranks <= MAX_RANKS
    return is_small and not any(adapter.magnitude for adapter in adapters)
