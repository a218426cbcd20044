"""Keys and values of texts that were computed before, kept for prompts that begin alike.

Kept in blocks of `BLOCK` positions. A block is found by the hash of everything it depends on: base,
adapter, the tenant's salt and all ids up to its end. So blocks form chains, and texts with a common
beginning share its blocks. The longest unused goes first; of one chain always the last block.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from torch import Tensor

BLOCK = 32


@dataclass(frozen=True)
class Origin:
    """What keys and values depend on besides the ids."""

    base: Hashable
    adapter: str | None
    """By sha256."""
    salt: str
    outgrown: bool = False
    """Whether the text is past `Decoder.short_positions`, where other keys are computed."""


class PrefixCache:
    """Blocks of all bases. `room` says how many bytes are free; what is kept never needs more."""

    def __init__(self, limit_bytes: int, room: Callable[[], int]) -> None:
        self.num_bytes = 0
        self._limit_bytes = limit_bytes
        self._room = room
        self._blocks: OrderedDict[bytes, tuple[Origin, Tensor]] = OrderedDict()

    def find(self, origin: Origin, ids: Sequence[int]) -> list[Tensor]:
        """The blocks with which a text begins, each (2 x layers, K, BLOCK, D).

        At least the last id is left over: its scores are what a prompt is computed for.
        """
        found = []
        for digest in _chain(origin, ids[:-1]):
            if digest not in self._blocks:
                break
            found.append(digest)
        self._touch(found)
        return [self._blocks[digest][1] for digest in found]

    def keep(
        self,
        origin: Origin,
        ids: Sequence[int],
        read: Callable[[int, int], Tensor],
        bytes_each: int,
    ) -> None:
        """Keeps the whole blocks of a text; `read` gives the positions from one to another."""
        chain = _chain(origin, ids)
        num_known = next(
            (place for place, digest in enumerate(chain) if digest not in self._blocks), len(chain)
        )
        self._touch(chain[:num_known])
        missing = chain[num_known:]
        limit = self._limit_bytes - num_known * bytes_each * BLOCK
        missing = missing[: max(limit, 0) // (bytes_each * BLOCK)]
        needed = len(missing) * bytes_each * BLOCK
        self.evict(needed - min(self._limit_bytes - self.num_bytes, self._room()))
        if not missing or needed > min(self._limit_bytes - self.num_bytes, self._room()):
            return
        if num_known and chain[num_known - 1] not in self._blocks:
            return  # what it goes on from had to make way
        first = num_known * BLOCK
        new = read(first, first + len(missing) * BLOCK)
        for place, digest in enumerate(missing):
            self._drop(digest)
            # A copy, so that each block's memory is its own.
            block = new[:, :, place * BLOCK : (place + 1) * BLOCK].clone()
            self._blocks[digest] = origin, block
            self.num_bytes += block.nbytes
        self._touch(chain[: num_known + len(missing)])

    def evict(self, num_bytes: int) -> None:
        """Gives back that much, or everything."""
        goal = self.num_bytes - num_bytes
        while self._blocks and self.num_bytes > goal:
            self._drop(next(iter(self._blocks)))

    def forget(self, *, base: Hashable = None, adapter: str | None = None) -> None:
        """Drops what was computed with a base, or with an adapter."""
        for digest, (origin, _) in list(self._blocks.items()):
            if origin.base == base or (adapter is not None and origin.adapter == adapter):
                self._drop(digest)

    def _touch(self, chain: Sequence[bytes]) -> None:
        # The first block last, so that it outlives those that are of no use without it.
        for digest in reversed(chain):
            self._blocks.move_to_end(digest)

    def _drop(self, digest: bytes) -> None:
        _, block = self._blocks.pop(digest, (None, None))
        if block is not None:
            self.num_bytes -= block.nbytes


def _chain(origin: Origin, ids: Sequence[int]) -> list[bytes]:
    """The hash of each whole block of a text."""
    digest = blake2b(repr(origin).encode(), digest_size=16).digest()
    chain = []
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        block = array("q", ids[start : start + BLOCK]).tobytes()
        digest = blake2b(digest + block, digest_size=16).digest()
        chain.append(digest)
    return chain
