"""Which number type a base computes in: bf16 where this machine is faster with it, else fp32."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

# A choice within the noise of a busy machine would differ from start to start.
WORTHWHILE = 1.2
NUM_ROUNDS = 5
# One answer and a small batch.
BATCH_SIZES = (1, 8)
# Weights of a layer: below, overhead decides and fp32 loses nothing; above, time is saved.
SMALL_LAYER, MAX_PROBED = 1 << 20, 1 << 22


def compute_dtype(config: Mapping[str, Any], device: str) -> torch.dtype | None:
    """The type to load a model with this config.json in; None keeps the stored one.

    Only models stored in 16 bits are asked about: others would lose precision.
    """
    stored = str(config.get("dtype") or config.get("torch_dtype"))
    if stored not in ("bfloat16", "float16"):
        return torch.float32 if device == "cpu" else None
    if device != "cpu":
        return None
    inputs = int(config.get("hidden_size") or 1024)
    outputs = int(config.get("intermediate_size") or 4 * inputs)
    if stored == "float16" or inputs * outputs < SMALL_LAYER:
        return torch.float32
    speedup = bf16_speedup(inputs, min(outputs, MAX_PROBED // inputs))
    return torch.bfloat16 if speedup >= WORTHWHILE else torch.float32


def bf16_speedup(inputs: int, outputs: int) -> float:
    """Time of fp32 over time of bf16, for a linear layer of this size.

    Takes some milliseconds; counts time on the processor, so what else runs does not matter.
    """
    torch.set_num_threads(1)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.ones(outputs, inputs, dtype=dtype)
        seconds[dtype] = sum(_best_s(weight, rows) for rows in BATCH_SIZES)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _best_s(weight: torch.Tensor, num_rows: int) -> float:
    x = torch.ones(num_rows, weight.shape[1], dtype=weight.dtype)
    best = float("inf")
    for _ in range(NUM_ROUNDS):
        start = time.thread_time()
        F.linear(x, weight)
        best = min(best, time.thread_time() - start)
    return best
