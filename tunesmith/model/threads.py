"""How OpenMP threads wait. Torch-free: it has to be settled before torch is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# For torch's own runtime (GNU) about a tenth of a millisecond of spinning. Others read the policy
# alone, and sleep at once.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets threads spin from one product to the next, and sleep where there is nothing to do.

    Waking a thread takes longer than many a product of a small model: without spinning a training
    step takes a seventh longer. Spinning without end, as is usual, halves the speed of two
    processes that share their cores; this costs them a twelfth. What the user has set stays.
    """
    if not WAITING.keys() & environment.keys():
        environment.update(WAITING)
