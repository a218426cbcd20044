"""Which number type and how many threads are fastest here: measured, not guessed.

What is timed is a linear layer pair of the model's width with its norm and a LoRA, forwards and
backwards, so that the casts that bf16 costs count as well as the products that it speeds up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from tunesmith.model.passes import rms_norm

WIDENING = 3
"""Inner width over hidden width, about as in Llama."""
RANK = 16
MAX_TOKENS = 256
NUM_REPEATS = 4
ENOUGH_S = 0.2
# bf16 has to be this much faster to be worth its rounding.
BF16_GAIN = 1.3
# More threads have to be this much faster to be taken from other processes.
THREADS_GAIN = 1.2
# Operations of one product. Below the first, overhead decides and one thread in fp32 is best, so
# that equal small jobs give equal results; from the second on every core is worth it, whatever
# else runs at the moment.
SMALL_PRODUCT = 1 << 25
LARGE_PRODUCT = 1 << 30


def choose_cpu(num_tokens: int, hidden_size: int, max_threads: int) -> tuple[torch.dtype, int]:
    """The type and threads for micro-batches of about `num_tokens`; changes the threads set."""
    num_tokens = min(num_tokens, MAX_TOKENS)
    product = 2 * WIDENING * num_tokens * hidden_size**2
    if product < SMALL_PRODUCT:
        return torch.float32, 1
    torch.set_num_threads(1)
    # Time on the processor: what else runs there does not count.
    wide, narrow = (
        seconds(dtype, num_tokens, hidden_size, time.thread_time)
        for dtype in (torch.float32, torch.bfloat16)
    )
    dtype = torch.float32 if wide < BF16_GAIN * narrow else torch.bfloat16
    if product >= LARGE_PRODUCT or max_threads == 1:
        return dtype, max_threads
    one = seconds(dtype, num_tokens, hidden_size, time.perf_counter)
    torch.set_num_threads(max_threads)
    many = seconds(dtype, num_tokens, hidden_size, time.perf_counter)
    return dtype, max_threads if many * THREADS_GAIN < one else 1


def choose_cuda() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def seconds(
    dtype: torch.dtype, num_tokens: int, hidden_size: int, clock: Callable[[], float]
) -> float:
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
        start = clock()
        normed = rms_norm(x_TE, norm_E, 1e-5)
        update = F.linear(F.linear(normed, a.to(dtype)), b.to(dtype))
        out_TE = F.linear(F.silu(F.linear(normed, up) + update), down)
        torch.autograd.grad(out_TE.sum(), (x_TE, a, b))
        taken = clock() - start
        if run > 0 or taken > ENOUGH_S:
            best = min(best, taken)
        if taken > ENOUGH_S:
            break
    return best
