"""Running out of memory: a trainer lives through it by needing less, a step at a time, and says so.
What does not pass ends as an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from tunesmith.errors import JobError
from tunesmith.jobdir.files import write_record
from tunesmith.jobdir.layout import PLAN_FILE
from tunesmith.model.memory import is_out_of_memory
from tunesmith.train.job import Job
from tunesmith.train.objective import Objective, longest_unit
from tunesmith.train.start import Run

Value = TypeVar("Value")


def within_memory(
    job: Job, run: Run, objective: Objective, rows: Sequence[int], work: Callable[[int], Value]
) -> Value:
    """`work(micro_tokens)` on these rows, repeated with less while it runs out of memory.

    What was given up is so for the rest of the job. Raises JobError where nothing is left to give.
    """
    while True:
        try:
            return work(run.plan.micro_tokens)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler: the error's frames hold the tensors that have to go.
        _give_way(job, run, longest_unit(objective, rows))


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
        plan = replace(plan, micro_tokens=plan.micro_tokens // 2)
        what = str(plan.micro_tokens)
        text = f"going on with at most {what} tokens at once"
    elif not plan.recompute and not run.model.slow:
        plan = replace(plan, recompute=True)
        what = "recompute"
        text = "going on with layers computed twice instead of being kept, a third slower"
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
