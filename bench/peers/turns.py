"""How engines take turns: each is a process that loads once, then does what a line of its input
says and answers with a line. So two of them see the same machine within seconds."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence

Work = Callable[[Sequence[Sequence[int]], int, int], Sequence[Sequence[int]]]
"""Prompts, tokens to generate of each, and how many different adapters (0: the base) -> ids."""


def take_turns(work: Work) -> None:
    """Until the input ends. What libraries print goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        given = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        ids = work(given["prompts"], given["tokens"], given["adapters"])
        found = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps({**found, "ids": [list(row) for row in ids]}), file=answers)
