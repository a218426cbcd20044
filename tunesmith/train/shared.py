"""Equal beginnings of sequences, which a row has only once.

What a position comes to depends on nothing behind it, so that sequences with the same system
prompt, or a pair with its one prompt, need it computed once. Attention alone sees whole sequences.

Shape suffixes: T positions of the row, P positions of its sequences, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

# The least part of its positions that a row has to save.
WORTH_SHARING = 0.02


@dataclass(frozen=True)
class Shared:
    """Which positions of a row's sequences are the same one."""

    places_P: Tensor
    """Where in the row each position of the sequences, one after the other, is found."""
    firsts_T: Tensor
    """The other way: of each of the row, the first position that it stands for."""

    def to(self, device: torch.device) -> Shared:
        return Shared(self.places_P.to(device), self.firsts_T.to(device))


def find_shared(parts: Sequence[Tensor]) -> Shared | None:
    """What the sequences (ids) share; None where it is not worth the trouble."""
    starts = list(accumulate(map(len, parts), initial=0))
    # Next to each other are then those that share the most.
    alphabetic = sorted(range(len(parts)), key=lambda each: parts[each].tolist())
    places: dict[int, Tensor] = {}
    firsts: list[Tensor] = []
    size, before = 0, None
    for each in alphabetic:
        length = len(parts[each])
        num = 0 if before is None else num_equal(parts[before], parts[each])
        own = torch.arange(size, size + length - num)
        places[each] = own if before is None else torch.cat((places[before][:num], own))
        firsts.append(torch.arange(starts[each] + num, starts[each] + length))
        size, before = size + length - num, each
    if size > (1 - WORTH_SHARING) * starts[-1]:
        return None
    return Shared(torch.cat([places[each] for each in range(len(parts))]), torch.cat(firsts))


def num_equal(one: Tensor, other: Tensor) -> int:
    """Ids at the beginning that are equal."""
    num = min(len(one), len(other))
    differing = (one[:num] != other[:num]).nonzero()
    return int(differing[0]) if len(differing) else num
