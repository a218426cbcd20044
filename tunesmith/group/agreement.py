"""What the processes of a job have to have in common before the first step."""

from __future__ import annotations

import hashlib
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tunesmith.bases import BaseInfo
from tunesmith.errors import JobError
from tunesmith.group.world import World
from tunesmith.jobdir.records import from_json, to_json
from tunesmith.jobdir.spec import Spec

Record = TypeVar("Record")


class Rows(Protocol):
    """What is read from a file of rows."""

    def digest(self) -> str: ...


def take_gpu(spec: Spec, world: World) -> None:
    """Gives each process on a machine a GPU of its own, where there are GPUs. Raises JobError."""
    if world.size == 1 or spec.device == "cpu" or not torch.cuda.is_available():
        return
    found = torch.cuda.device_count()
    if world.local_size > found:
        raise JobError(
            f"{world.local_size} processes need a GPU each, and this machine has {found}. Set "
            f"TUNESMITH_TRAIN_PROCESSES={found}, or TUNESMITH_DEVICE=cpu.",
            code="device_unavailable",
        )
    torch.cuda.set_device(world.local_rank)


def check_same_inputs(world: World, base: BaseInfo, *files: Rows) -> None:
    """Raises JobError where processes have other rows, another base or another torch."""
    if world.size > 1:
        parts = [torch.__version__, base.fingerprint, *(rows.digest() for rows in files)]
        _check(world, " ".join(parts).encode())


def check_same_values(world: World, values: Tensor) -> None:
    """Raises JobError where processes would start from other values."""
    if world.size > 1:
        _check(world, hashlib.sha256(values.cpu().numpy().data).digest())


def _check(world: World, digest: bytes) -> None:
    if not world.is_same(digest):
        raise JobError(
            "The processes of this job do not read the same files, or run other versions of torch. "
            "All machines need the same data directory, base model and installation.",
            code="processes_differ",
        )


def agreed(world: World, record: Record) -> Record:
    """The first process's, in all."""
    if world.size == 1:
        return record
    return from_json(type(record), world.agree_text(to_json(record)))
