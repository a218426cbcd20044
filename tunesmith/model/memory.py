"""How much memory is left, how it is kept, and what running out of it looks like."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

CGROUP = Path("/sys/fs/cgroup")
# Options of glibc's mallopt.
TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
MMAP_MAX = -4
# Of what is free on a GPU, so much for an engine.
CUDA_SHARE = 0.85
# Places that are returned by themselves: of this size on, and so many at once.
LARGE_BYTES, MAX_LARGE = 1 << 20, 1 << 16


def keep_freed_memory() -> None:
    """Lets the C library hand what a step frees to the next one, for the rest of the process.

    Otherwise every large tensor is mapped, zeroed page by page by the system and unmapped again:
    a fifth of a step on a CPU. Nothing happens where the C library is not glibc.
    """
    _set({MMAP_MAX: 0, TRIM_THRESHOLD: -1})


def return_freed_memory() -> None:
    """Undoes it for large tensors: slower, for a process in which some come and go between others
    that stay. Kept, each would leave a hole that the next one does not fit into."""
    _set({MMAP_THRESHOLD: LARGE_BYTES, MMAP_MAX: MAX_LARGE})


def _set(options: Mapping[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)


def give_back(tensor: Tensor) -> None:
    """Takes the pages of a tensor that is mapped from a file out of this process; what is read of
    them again comes from the file. Nothing happens to any other tensor."""
    start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, _, _, _, inode, *_ = line.split(maxsplit=5)
        first, last = (int(each, 16) for each in span.split("-"))
        # Pages without a file would be zeros.
        if first <= start and end <= last and inode != "0":
            size = os.sysconf("SC_PAGE_SIZE")
            start, end = -(-start // size) * size, end // size * size
            if start < end:
                madvise = ctypes.CDLL(None).madvise
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
            return


def total_bytes() -> int:
    """Of the machine, or of the container that holds this process."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(machine, int((CGROUP / name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return machine


def engine_bytes(device: str) -> int:
    """For models and running sequences, where nothing is set: half of the machine's memory, most
    of what is free on a GPU."""
    if device != "cpu":
        return int(CUDA_SHARE * torch.cuda.mem_get_info(device)[0])
    return total_bytes() // 2


def available_bytes(device: torch.device) -> int:
    """What a process may still allocate on the device, as far as the system tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return min(_machine_bytes(), _cgroup_bytes())


def used_bytes(device: torch.device) -> int:
    """What this process holds now, or has allocated on its GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """The most it ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status_bytes("VmHWM")


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's allocator on CPU raises a bare RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _machine_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _cgroup_bytes() -> int:
    """What the control group (v2) leaves; without a limit, without bound."""
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (CGROUP / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return 1 << 62
    return 1 << 62 if limit == "max" else max(0, int(limit) - int(used))
