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
MAX_PROBE_WEIGHTS = 4 << 20


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
    outputs = min(int(config.get("intermediate_size") or 4 * inputs), MAX_PROBE_WEIGHTS // inputs)
    if stored == "bfloat16" and bf16_speedup(inputs, max(outputs, 1)) >= WORTHWHILE:
        return torch.bfloat16
    return torch.float32


def bf16_speedup(inputs: int, outputs: int) -> float:
    """Time of fp32 over time of bf16, for a linear layer of this size; some milliseconds."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.ones(outputs, inputs, dtype=dtype)
        seconds[dtype] = sum(_best_s(weight, rows) for rows in BATCH_SIZES)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _best_s(weight: torch.Tensor, num_rows: int) -> float:
    x = torch.ones(num_rows, weight.shape[1], dtype=weight.dtype)
    best = float("inf")
    for _ in range(NUM_ROUNDS):
        start = time.perf_counter()
        F.linear(x, weight)
        best = min(best, time.perf_counter() - start)
    return best
