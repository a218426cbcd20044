"""How fast products are here, and so which number type a base computes in: bf16 where this machine
is faster with it, else fp32.

Answering goes by a stopwatch. Training goes by what the processor has and by the size of the
products, so that the same job decides the same twice, and how many threads it takes, too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from tunesmith.model import fixed

# A choice within the noise of a busy machine would differ from start to start.
WORTHWHILE = 1.2
NUM_ROUNDS = 5
# One answer and a small batch.
BATCH_SIZES = (1, 8)
# Weights of a layer: below, overhead decides and fp32 loses nothing; above, time is saved.
SMALL_LAYER, MAX_PROBED = 1 << 20, 1 << 22

# Inner width over hidden width, about as in Llama.
WIDENING = 3
# Positions that products grow with: more make none of the choices below different.
MAX_TOKENS = 256
# Operations of one product in training. Below the first, overhead decides: one thread is best.
# Below the second, casts cost more than products of narrower numbers save.
SMALL_PRODUCT = 1 << 25
NARROW_PRODUCT = 1 << 26


def training_on_cpu(num_tokens: int, hidden_size: int, max_threads: int) -> tuple[torch.dtype, int]:
    """The type and threads for micro-batches of about `num_tokens`."""
    product = _training_product(num_tokens, hidden_size)
    if product < SMALL_PRODUCT:
        return torch.float32, 1
    is_narrow = product >= NARROW_PRODUCT and multiplies_bf16()
    return torch.bfloat16 if is_narrow else torch.float32, max_threads


def multiplies_in_fixed_point(num_tokens: int, hidden_size: int) -> bool:
    """Whether training in fp32 multiplies frozen weights as integers (`fixed.py`): where products
    are large enough to repay what is formed beside them."""
    return (
        _training_product(num_tokens, hidden_size) >= NARROW_PRODUCT and fixed.library() is not None
    )


def training_on_cuda() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def _training_product(num_tokens: int, hidden_size: int) -> int:
    return 2 * WIDENING * min(num_tokens, MAX_TOKENS) * hidden_size**2


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for it; emulated it is slower than fp32, by five."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


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
