"""The two shortages a trainer lives through, and says so: memory, by halving its micro-batches;
disk, by waiting a little. What does not pass ends as an error.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from tunesmith.errors import JobError
from tunesmith.train import spec as files
from tunesmith.train.job import Job
from tunesmith.train.memory import is_out_of_memory
from tunesmith.train.start import Run

# Waits between attempts to write onto a full disk, seconds.
DISK_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Value = TypeVar("Value")


def within_memory(job: Job, run: Run, longest: int, work: Callable[[int], Value]) -> Value:
    """`work(micro_tokens)`, repeated with half the tokens while it runs out of memory.

    `longest` is the longest sequence in it, which cannot be split. Raises JobError when a single
    one is too much. The smaller micro-batch is kept for the rest of the job.
    """
    while True:
        try:
            return work(run.plan.micro_tokens)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler: the error's frames hold the tensors that have to go.
        _halve(job, run, longest)


def _halve(job: Job, run: Run, longest: int) -> None:
    if run.plan.micro_tokens <= longest:
        raise JobError(
            f"Memory does not hold one example of {longest} tokens. Shorten the longest examples, "
            "use a smaller base model or lora_rank, or a machine with more memory.",
            code="out_of_memory",
        )
    if run.plan.device == "cuda":
        torch.cuda.empty_cache()
    run.plan = run.plan.smaller()
    if job.world.is_first:
        files.write(run.plan, job.dir / files.PLAN_FILE)
    text = f"Out of memory: going on with at most {run.plan.micro_tokens} tokens at once"
    job.journal.message(f"warn:memory:{run.plan.micro_tokens}", text, "warn")


def despite_full_disk(write: Callable[[], object]) -> None:
    """`write()`, again after a while where the disk is full. Raises OSError in the end."""
    for wait_s in DISK_WAITS_S:
        try:
            write()
            return
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
        time.sleep(wait_s)
    write()
