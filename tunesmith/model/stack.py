"""Different adapters for the few rows of a pass of single tokens, in two products a linear.

The adapters' matrices lie one behind the other along the rank; a mask leaves each row its own part.
The zeros are computed, too, so it is for few rows: there the number of products is what costs. They
change no bit of a row: a single adapter is computed in the same way.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.decoder import Linears
from tunesmith.model.lora import Adapter

# More rows than this, or longer sums, are computed adapter by adapter (`AdapterBatch`).
MAX_ROWS = 64
MAX_RANKS = 384
# A stack of so many times the ranks in use is made anew.
WASTEFUL = 2

Matrices = tuple[Tensor, list[Tensor]]


class AdapterStack:
    """The matrices of some adapters, stacked as the linears are first used.

    An adapter keeps its place until nobody else has it or another one needs the place, so that one
    that joins those in use costs the copy of its own matrices.
    """

    def __init__(self) -> None:
        self._starts: weakref.WeakKeyDictionary[Adapter, int] = weakref.WeakKeyDictionary()
        """The first of each adapter's places along the rank."""
        self._num_places = 0
        self.stacked: dict[tuple[str, ...], Matrices] = {}
        """By the names of linears with one input."""
        self._last: tuple[list[weakref.ref[Adapter] | None], StackedRows] | None = None

    @property
    def num_bytes(self) -> int:
        matrices = self.stacked.values()
        return sum(a.nbytes + sum(each.nbytes for each in b) for a, b in matrices)

    def clear(self) -> None:
        """Gives the memory back; what is needed again is copied again."""
        self._begin([])

    def rows(self, adapters: Sequence[Adapter | None]) -> StackedRows:
        """The update for rows with these adapters; those of an earlier call may be void."""
        refs = [None if each is None else weakref.ref(each) for each in adapters]
        # From step to step they are mostly the same.
        if self._last is None or self._last[0] != refs:
            # In the order of the rows, each once.
            self._hold(list(dict.fromkeys(each for each in adapters if each is not None)))
            self._last = refs, StackedRows(self, self._mask(adapters))
        return self._last[1]

    def matrices(self, names: tuple[str, ...], inputs: int, outputs: Sequence[Tensor]) -> Matrices:
        """A^T of all names, (inputs, names x places); B^T of each name, (places, outputs)."""
        if names not in self.stacked:
            num, like = self._num_places, outputs[0]
            a = like.new_zeros(inputs, len(names) * num)
            b = [like.new_zeros(num, output.shape[-1]) for output in outputs]
            self.stacked[names] = a, b
            for adapter in self._starts:
                self._copy(adapter, names)
        return self.stacked[names]

    def _hold(self, adapters: list[Adapter]) -> None:
        """Gives each of these adapters its places."""
        num_ranks = sum(each.spec.rank for each in adapters)
        if self._num_places > WASTEFUL * num_ranks:
            self._begin(adapters)
        for adapter in [each for each in adapters if each not in self._starts]:
            start = self._gap(adapter.spec.rank, self._starts)
            if start is None:
                start = self._gap(adapter.spec.rank, set(adapters).intersection(self._starts))
            if start is None:
                self._begin(adapters)
                return
            for other in [each for each in self._starts if each not in adapters]:
                is_before = self._stop(other) <= start
                if not is_before and self._starts[other] < start + adapter.spec.rank:
                    del self._starts[other]
            self._starts[adapter] = start
            for names in self.stacked:
                self._copy(adapter, names)

    def _begin(self, adapters: list[Adapter]) -> None:
        """With these adapters and no room for more."""
        self.stacked.clear()
        self._starts.clear()
        self._last = None
        self._num_places = 0
        for adapter in adapters:
            self._starts[adapter] = self._num_places
            self._num_places += adapter.spec.rank

    def _gap(self, num: int, adapters: Iterable[Adapter]) -> int | None:
        """Where so many places are beside those of `adapters`."""
        start = 0
        for adapter in sorted(adapters, key=lambda each: self._starts[each]):
            if self._starts[adapter] - start >= num:
                return start
            start = self._stop(adapter)
        return start if self._num_places - start >= num else None

    def _stop(self, adapter: Adapter) -> int:
        return self._starts[adapter] + adapter.spec.rank

    def _copy(self, adapter: Adapter, names: tuple[str, ...]) -> None:
        """The adapter's matrices of these linears to its places."""
        a, b = self.stacked[names]
        places = slice(self._starts[adapter], self._stop(adapter))
        a_by_name = a.view(len(a), len(names), self._num_places)
        for number, name in enumerate(names):
            a_by_name[:, number, places] = adapter.a[name].T if name in adapter.a else 0.0
            b[number][places] = adapter.b[name].T if name in adapter.b else 0.0

    def _mask(self, adapters: Sequence[Adapter | None]) -> Tensor:
        """(rows, places): the scale at each row's own adapter, else 0."""
        mask_BR = torch.zeros(len(adapters), self._num_places)
        for row, adapter in enumerate(adapters):
            if adapter is not None:
                mask_BR[row, self._starts[adapter] : self._stop(adapter)] = adapter.spec.scale
        return mask_BR


class StackedRows:
    """The `LowRankUpdate` of one pass."""

    def __init__(self, stack: AdapterStack, mask_BR: Tensor) -> None:
        self.stack = stack
        self.mask_BR = mask_BR
        self._masks: dict[int, Tensor] = {}

    def adapt(self, names: tuple[str, ...], x_BTE: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its rows' updates."""
        outputs = products(names, x_BTE)
        matrices = self.stack.matrices(names, x_BTE.shape[-1], outputs)
        if len(names) not in self._masks:
            self._masks[len(names)] = self.mask_BR.to(x_BTE).repeat(1, len(names))
        return _added(outputs, x_BTE, matrices, self._masks[len(names)])

    def recordable(self, num_rows: int) -> RecordableRows:
        """The same update for so many rows, the first of which these are."""
        return RecordableRows(self.stack, self.mask_BR.shape[1], num_rows)


class RecordableRows:
    """The `LowRankUpdate` of a step that is recorded: what it reads has fixed places. Keeps none of
    the stack alive."""

    def __init__(self, stack: AdapterStack, num_places: int, num_rows: int) -> None:
        self._held = {
            names: (weakref.ref(a), [weakref.ref(each) for each in b])
            for names, (a, b) in stack.stacked.items()
        }
        like, _ = next(iter(stack.stacked.values()))
        self._mask_BR = like.new_zeros(num_rows, num_places)

    def fits(self, rows: StackedRows) -> bool:
        """Whether those are rows of the same matrices, with whatever adapters in their places."""
        now = rows.stack.stacked
        return now.keys() == self._held.keys() and all(
            now[names][0] is a() for names, (a, _) in self._held.items()
        )

    def take(self, rows: StackedRows) -> None:
        """From now on the update is that of these rows."""
        missing = len(self._mask_BR) - len(rows.mask_BR)
        self._mask_BR.copy_(F.pad(rows.mask_BR, (0, 0, 0, missing)))

    def adapt(self, names: tuple[str, ...], x_BTE: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its rows' updates."""
        a, b = self._held[names]
        a_ER, b_RO = a(), [each() for each in b]
        assert a_ER is not None, "`fits` is asked first"
        matrices = a_ER, [each for each in b_RO if each is not None]
        mask_BR = self._mask_BR.repeat(1, len(names))
        return _added(products(names, x_BTE), x_BTE, matrices, mask_BR)


def _added(
    outputs: tuple[Tensor, ...], x_BTE: Tensor, matrices: Matrices, mask_BR: Tensor
) -> tuple[Tensor, ...]:
    a, b = matrices
    narrow_BR = torch.mm(x_BTE, a).mul_(mask_BR)
    parts = torch.split_with_sizes(narrow_BR, [len(each) for each in b], 1)
    return tuple(
        output.addmm_(part, each) for output, part, each in zip(outputs, parts, b, strict=True)
    )


def stackable(adapters: Collection[Adapter], num_rows: int) -> bool:
    """Whether stacking pays, and can be done: DoRA stretches what it gets, so not with it."""
    num_ranks = sum(adapter.spec.rank for adapter in adapters)
    is_small = num_rows <= MAX_ROWS and num_ranks <= MAX_RANKS
    return is_small and not any(adapter.magnitude for adapter in adapters)
