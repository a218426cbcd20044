"""How OpenMP threads wait. Torch-free: it has to be settled before torch is imported."""

from __future__ import annotations

import os


def sleep_when_idle() -> None:
    """Lets threads sleep between parallel regions instead of spinning.

    Spinning is faster by microseconds on an idle machine and slower by a factor of five to ten
    where trainer and engine share cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
