"""The two shortages a trainer lives through, and says so: memory, by needing less a step at a
time; disk, by waiting a little. What does not pass ends as an error.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from tunesmith.errors import JobError
from tunesmith.jobdir.files import write_record
from tunesmith.jobdir.layout import PLAN_FILE
from tunesmith.model.memory import is_out_of_memory
from tunesmith.train.job import Job
from tunesmith.train.start import Run

# Waits between attempts to write onto a full disk, seconds.
DISK_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Value = TypeVar("Value")


def within_memory(job: Job, run: Run, longest: int, work: Callable[[int], Value]) -> Value:
    """`work(micro_tokens)`, repeated with less while it runs out of memory.

    `longest` is the longest sequence in it, which cannot be split. Raises JobError when a single
    one is too much. What was given up is given up for the rest of the job.
    """
    while True:
        try:
            return work(run.plan.micro_tokens)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler: the error's frames hold the tensors that have to go.
        _give_way(job, run, longest)


def _give_way(job: Job, run: Run, longest: int) -> None:
    """The next way to need less memory: smaller micro-batches, then layers computed twice, then,
    of a GPU, what is kept put into the machine's memory."""
    plan = run.plan
    if plan.sharded:
        # The others wait for this process's part of a layer: they cannot be asked to start over.
        raise JobError(
            f"Memory does not hold {plan.micro_tokens} tokens beside the model's parts. Use more "
            "processes, a smaller base model or shorter examples.",
            code="out_of_memory",
        )
    if plan.micro_tokens > longest:
        plan = plan.smaller()
        what, text = (
            str(plan.micro_tokens),
            f"going on with at most {plan.micro_tokens} tokens at once",
        )
    elif not plan.recompute and not run.model.slow:
        plan = replace(plan, recompute=True)
        what, text = (
            "recompute",
            "going on with layers computed twice instead of being kept, a third slower",
        )
    elif not plan.offload and plan.device == "cuda":
        plan = replace(plan, offload=True)
        what, text = "offload", "going on with what is kept in the machine's memory, much slower"
    else:
        raise JobError(
            f"Memory does not hold one example of {longest} tokens. Shorten the longest examples, "
            "use a smaller base model or lora_rank, or a machine with more memory.",
            code="out_of_memory",
        )
    if plan.device == "cuda":
        torch.cuda.empty_cache()
    run.plan = plan
    if job.world.is_first:
        write_record(plan, job.dir / PLAN_FILE)
    job.journal.message(f"warn:memory:{what}", f"Out of memory: {text}", "warn")


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
