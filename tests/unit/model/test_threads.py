"""Threads wait as they are told to."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.model.threads import LEAVE_ONE, ONE_THREAD, WAITING, threads_for, wait_briefly


@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_user_has_set_is_left_alone(chosen: dict[str, str]) -> None:
    environment = dict(chosen)
    wait_briefly(environment)
    assert environment == chosen


def test_torchs_runtime_reads_it() -> None:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    [runtime] = Path(spec.origin).parent.glob("lib/libgomp*")
    environment = {"PATH": os.environ["PATH"], "OMP_DISPLAY_ENV": "verbose"}
    wait_briefly(environment)
    load = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(runtime)!r})"]
    done = subprocess.run(load, env=environment, capture_output=True, text=True, check=True)
    for name, value in WAITING.items():
        assert f"{name} = '{value}'" in done.stderr


@pytest.mark.parametrize(
    ("num_products", "num_prompts", "most", "number"),
    [
        (ONE_THREAD - 1, 0, 8, 1),
        (ONE_THREAD, 0, 8, 8),
        (ONE_THREAD, 1, 8, 8),  # nobody else is on the way
        (ONE_THREAD, 2, 8, 7),
        (ONE_THREAD, 2, 1, 1),
        (LEAVE_ONE, 2, 8, 8),
    ],
)
def test_small_passes_leave_processors_to_others(
    num_products: int, num_prompts: int, most: int, number: int
) -> None:
    assert threads_for(num_products, num_prompts, most) == number
