"""Which number type and how many threads are fastest here: measured, not guessed.

What is timed is a LoRA linear pair of the model's width with its norm, forwards and backwards, so
that the casts that bf16 costs count as well as the products that it speeds up.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from tunesmith.model.decoder import rms_norm

WIDENING = 3
"""Inner width over hidden width, about as in Llama."""
RANK = 16
MAX_TOKENS = 256
NUM_REPEATS = 3
ENOUGH_S = 0.2
# bf16 has to be this much faster to be worth its rounding.
BF16_GAIN = 1.3
# More threads have to be this much faster to be taken from other processes.
THREADS_GAIN = 1.2
# From this many operations on a product is worth every core, whatever else runs at the moment.
LARGE_PRODUCT = 1 << 30


def choose_cpu(num_tokens: int, hidden_size: int, max_threads: int) -> tuple[torch.dtype, int]:
    """The type and threads for micro-batches of about `num_tokens`; leaves the threads set."""
    num_tokens = max(8, min(num_tokens, MAX_TOKENS))
    product = 2 * WIDENING * num_tokens * hidden_size**2
    options = [max_threads] if product >= LARGE_PRODUCT else sorted({1, max_threads})
    best: tuple[float, torch.dtype, int] | None = None
    for threads in options:
        torch.set_num_threads(threads)
        wide = seconds(torch.float32, num_tokens, hidden_size)
        narrow = seconds(torch.bfloat16, num_tokens, hidden_size)
        fastest = (wide, torch.float32) if wide < BF16_GAIN * narrow else (narrow, torch.bfloat16)
        if best is None or fastest[0] * THREADS_GAIN < best[0]:
            best = (*fastest, threads)
    assert best is not None, "there is always one option"
    torch.set_num_threads(best[2])
    return best[1], best[2]


def choose_cuda() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def seconds(dtype: torch.dtype, num_tokens: int, hidden_size: int) -> float:
    """The best of a few runs, after one to warm up; a single one where it is slow."""
    inner_size = WIDENING * hidden_size
    x_TE = torch.zeros(num_tokens, hidden_size, dtype=dtype, requires_grad=True)
    norm_E = torch.ones(hidden_size, dtype=dtype)
    up = torch.zeros(inner_size, hidden_size, dtype=dtype)
    down = torch.zeros(hidden_size, inner_size, dtype=dtype)
    a = torch.zeros(RANK, hidden_size, requires_grad=True)
    b = torch.zeros(inner_size, RANK, requires_grad=True)
    best = float("inf")
    for run in range(NUM_REPEATS + 1):
        start = time.perf_counter()
        normed = rms_norm(x_TE, norm_E, 1e-5)
        update = F.linear(F.linear(normed, a.to(dtype)), b.to(dtype))
        out_TE = F.linear(F.silu(F.linear(normed, up) + update), down)
        torch.autograd.grad(out_TE.sum(), (x_TE, a, b))
        taken = time.perf_counter() - start
        if run > 0 or taken > ENOUGH_S:
            best = min(best, taken)
        if taken > ENOUGH_S:
            break
    return best
