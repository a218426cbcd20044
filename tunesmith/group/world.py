"""The processes that train one job together, and the few things they say to each other.

Every process reads the same files and takes every W-th unit of a step's one order; gradient and
figures are then added up. The first process alone decides (stop, save, fence) and alone writes, so
whatever ends it ends the job, and the others never leave a trace. What DistributedDataParallel
would bring is left out on purpose: gradients lie in one vector, so adding them up is one call whose
order never changes, where buckets would follow the order in which they got ready. For a model that
does not fit beside each process there is FSDP2, see sharded.py.

A world of one costs nothing and never imports torch.distributed. Tensors on a CPU go through gloo,
those on GPUs through NCCL. What is decided goes through gloo, which notices at once that another
process has died; one that hangs is given up after TIMEOUT.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from tunesmith.errors import TunesmithError
from tunesmith.group.place import LOCALHOST, Place
from tunesmith.model.memory import is_out_of_memory

# The longest that one process may let the others wait: the first one writes checkpoints meanwhile.
TIMEOUT = timedelta(minutes=30)
# How long all may take to find each other.
JOIN_TIMEOUT = timedelta(minutes=5)

LOOPBACK = "lo"
FAILURE_KEY = "tunesmith/failure"

Item = TypeVar("Item")


class Abandoned(TunesmithError):
    """Another process of the job has ended, or hangs."""


@dataclass(frozen=True)
class World:
    """`join` makes one of several; without arguments a process is alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those on this machine."""
    local_size: int = 1
    _store: Any = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of the items that are this process's part."""
        return items[self.rank :: self.size]

    def sum_(self, values: Tensor) -> Tensor:
        """Adds up, in place, what all processes have; the bits are the same everywhere."""
        if self.size > 1:
            import torch.distributed as dist

            with _together():
                dist.all_reduce(values)
        return values

    def gather_(self, values: Tensor) -> None:
        """Fills the vector: of its W equal parts each process brings the one of its rank."""
        if self.size > 1:
            import torch.distributed as dist

            # In place: gathering would hold the vector a second time.
            with _together():
                for rank, part in enumerate(values.chunk(self.size)):
                    dist.broadcast(part, rank)

    def collect(self, part: Tensor) -> Tensor:
        """The parts of all processes in one vector on the CPU, at the first; elsewhere nothing."""
        if self.size == 1:
            return part
        import torch.distributed as dist

        part = part.cpu()
        whole = part.new_empty(part.numel() * self.size if self.is_first else 0)
        parts = list(whole.chunk(self.size)) if self.is_first else None
        with _together():
            dist.gather(part, parts)
        return whole

    def agree(self, number: int) -> int:
        """What the first process says."""
        if self.size == 1:
            return number
        return int(self._spread(torch.tensor([number]))[0])

    def agree_text(self, text: bytes) -> bytes:
        """The same for a text; those of the other processes count for nothing."""
        if self.size == 1:
            return text
        return bytes(self.same(torch.tensor(list(text), dtype=torch.uint8)).tolist())

    def same(self, values: Tensor) -> Tensor:
        """The vector that the first process has; that of the others may be shorter or longer."""
        if self.size == 1:
            return values
        length = self.agree(len(values))
        return self._spread(values if self.is_first else values.new_zeros(length))

    def least(self, number: int) -> int:
        """The smallest that any process says."""
        return number if self.size == 1 else min(self._all(number))

    def most(self, number: int) -> int:
        """The largest that any process says."""
        return -self.least(-number)

    def is_same(self, digest: bytes) -> bool:
        """Whether all processes have what the first has; all get the same answer."""
        if self.size == 1:
            return True
        return bool(self.least(int(self.agree_text(digest) == digest)))

    @contextlib.contextmanager
    def in_memory(self) -> Iterator[None]:
        """All processes leave the block, or all raise that memory ran out."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if self.size > 1 and is_out_of_memory(error):
                self.least(0)
            raise
        if not self.least(1):
            raise MemoryError("Another process of this job ran out of memory.")

    def tell(self, failure: bytes) -> None:
        """Leaves word of why this process ends, for `told`; the first word counts."""
        if self._store is not None:
            with contextlib.suppress(RuntimeError):
                self._store.compare_set(FAILURE_KEY, "", failure.decode())

    def told(self) -> bytes | None:
        """Why another process ended, if it said so."""
        with contextlib.suppress(RuntimeError):
            if self._store is not None and self._store.check([FAILURE_KEY]):
                return bytes(self._store.get(FAILURE_KEY))
        return None

    def leave(self) -> None:
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    def _spread(self, values: Tensor) -> Tensor:
        import torch.distributed as dist

        with _together():
            dist.broadcast(values, 0)
        return values

    def _all(self, number: int) -> list[int]:
        import torch.distributed as dist

        numbers = torch.zeros(self.size, dtype=torch.int64)
        numbers[self.rank] = number
        with _together():
            dist.all_reduce(numbers)
        return [int(each) for each in numbers.tolist()]


ALONE = World()


def join(place: Place, *, timeout: timedelta = TIMEOUT) -> World:
    """Meets the other processes of the job. Raises Abandoned where they do not come."""
    if place.size == 1:
        return ALONE
    import torch.distributed as dist

    if place.port is not None:
        # All are on this machine: nobody else is to reach them.
        os.environ |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    with _together():
        store = _store(place)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=dist.PrefixStore("group", store),  # type: ignore[attr-defined]
            rank=place.rank,
            world_size=place.size,
            timeout=timeout,
        )
    return World(place.rank, place.size, place.local_rank, place.local_size, store)


def _store(place: Place) -> Any:
    """Where the processes find each other: torchrun's, or one that the first process keeps."""
    import torch.distributed as dist

    if place.port is None:
        from torch.distributed.rendezvous import rendezvous

        return next(rendezvous("env://", timeout=JOIN_TIMEOUT))[0]
    return dist.TCPStore(  # type: ignore[attr-defined]
        LOCALHOST,
        place.port,
        place.size,
        is_master=place.rank == 0,
        timeout=JOIN_TIMEOUT,
        master_listen_fd=place.listen_fd,
    )


@contextlib.contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise Abandoned(f"Another process of this job has ended or hangs ({error}).") from error
