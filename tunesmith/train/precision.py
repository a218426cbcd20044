"""Which number type and how many threads a job computes with: by what the processor has and by the
size of the products, never by a stopwatch, so that the same job decides the same twice.
"""

from __future__ import annotations

import torch

# Inner width over hidden width, about as in Llama.
WIDENING = 3
# Positions that products grow with: more make none of the choices below different.
MAX_TOKENS = 256
# Operations of one product. Below the first, overhead decides: one thread is best. Below the
# second, casts cost more than products of half the width save.
SMALL_PRODUCT = 1 << 25
NARROW_PRODUCT = 1 << 26


def choose_cpu(num_tokens: int, hidden_size: int, max_threads: int) -> tuple[torch.dtype, int]:
    """The type and threads for micro-batches of about `num_tokens`."""
    product = 2 * WIDENING * min(num_tokens, MAX_TOKENS) * hidden_size**2
    if product < SMALL_PRODUCT:
        return torch.float32, 1
    is_narrow = product >= NARROW_PRODUCT and multiplies_bf16()
    return torch.bfloat16 if is_narrow else torch.float32, max_threads


def choose_cuda() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for it; emulated it is slower than fp32, by five."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
