"""How many threads compute, and how they wait. Torch-free: how they wait has to be settled before
torch is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# For torch's own runtime (GNU) about a tenth of a millisecond of spinning. Others read the policy
# alone, and sleep at once.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}

# Below so many multiplications a pass of one thread is faster than one of several that have to
# meet after every layer (nano: 2-3 times faster on a machine that is busy training).
ONE_THREAD = 128_000_000
# Below so many, several prompts take no longer than the API needs to bring as many: a processor is
# left to it. Threads that wait for one that it has would be slower than those without.
LEAVE_ONE = 2_000_000_000


def threads_for(num_products: int, num_prompts: int, most: int) -> int:
    """How many of `most` threads to serve a pass with, by its multiplications."""
    if num_products < ONE_THREAD:
        return 1
    return max(most - 1, 1) if num_prompts > 1 and num_products < LEAVE_ONE else most


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets threads spin from one product to the next, and sleep where there is nothing to do.

    Waking a thread takes longer than many a product of a small model: without spinning a training
    step takes a seventh longer. Spinning without end, as is usual, halves the speed of two
    processes that share their cores; this costs them a twelfth. What the user has set stays.
    """
    if not WAITING.keys() & environment.keys():
        environment.update(WAITING)
