"""Whether the weights fit into memory: whole in every process, spread over them, or not at all."""

from __future__ import annotations

from dataclasses import replace

import torch

from tunesmith.bases import BaseInfo
from tunesmith.errors import JobError
from tunesmith.group.sharded import Sizes
from tunesmith.model.load import read_config
from tunesmith.model.memory import available_bytes
from tunesmith.model.nf4_files import is_nf4
from tunesmith.train.job import Job
from tunesmith.train.plan import Plan

# A base that takes more of the free memory leaves too little for activations.
BASE_SHARE = 2 / 3
# Layers of a spread model that are whole at once: the one that computes, and the next.
NUM_FETCHED = 2


def placed(job: Job, base: BaseInfo, plan: Plan) -> Plan:
    """The plan with the weights where they fit. Raises JobError where they do not."""
    free_bytes = available_bytes(torch.device(plan.device))
    if plan.device == "cpu":
        # The processes of a machine share it.
        free_bytes //= job.world.local_size
    sharded, warning = weigh(base, plan, job.world.least(free_bytes))
    if warning is not None:
        key = "warn:sharded" if sharded else "warn:base_memory"
        job.journal.message(key, warning, "warn")
    return replace(plan, sharded=sharded, fixed=plan.fixed and not sharded)


def weigh(base: BaseInfo, plan: Plan, free_bytes: int) -> tuple[bool, str | None]:
    """Whether layers have to be spread, and what to tell; `free_bytes` are one process's.

    Raises JobError where the weights do not fit at all. A base in NF4 is as small as it gets.
    """
    is_full, num = plan.finetuning_type == "full", plan.processes
    needed = whole_bytes(base.num_parameters, plan.torch_dtype, is_full, num)
    needed /= 2 if plan.fixed else 1
    if needed <= (free_bytes if is_full else BASE_SHARE * free_bytes):
        return False, None
    config = read_config(base.path)
    if is_nf4(config):
        return False, None
    there = f"{free_bytes / 1e9:.1f} GB are free"
    if num > 1 and not base.slow:
        spread = spread_bytes(Sizes.of(config), plan.torch_dtype, is_full, num)
        if spread < needed and spread <= free_bytes:
            return True, (
                f"{_wants(base, plan, needed)}, and {there} to each of {num} processes: its layers "
                f"are spread over them, {spread / 1e9:.1f} GB each, and fetched when they compute, "
                "which is slower."
            )
        needed = min(needed, spread)
    text = f"{_wants(base, plan, needed)}, and {there}. {_advice(base, is_full)}"
    if needed <= free_bytes:
        return False, text
    param = "hyperparameters.finetuning_type" if is_full else "model"
    raise JobError(text, code="out_of_memory", param=param)


def whole_bytes(num: int, dtype: torch.dtype, is_full: bool, num_processes: int) -> float:
    """What `num` weights take in each of the processes; trained ones with gradient and moments,
    which the processes share."""
    copies = 0 if dtype == torch.float32 else dtype.itemsize
    return num * (8 + 8 / num_processes + copies if is_full else dtype.itemsize)


def spread_bytes(sizes: Sizes, dtype: torch.dtype, is_full: bool, num_processes: int) -> float:
    """The same with the layers spread: a part of all, and those that compute."""
    kept = whole_bytes(sizes.kept, dtype, is_full, num_processes)
    part = sizes.layers * (16 if is_full else dtype.itemsize) / num_processes
    # A trained layer has a gradient as large.
    fetched = NUM_FETCHED * sizes.largest_layer * dtype.itemsize * (2 if is_full else 1)
    return kept + part + fetched


def _wants(base: BaseInfo, plan: Plan, needed: float) -> str:
    if plan.finetuning_type == "full":
        return (
            f"Training all {base.num_parameters:,} weights needs {needed / 1e9:.1f} GB of memory "
            "(weights, gradients and the optimizer's moments in fp32)"
        )
    dtype = "16-bit fixed point" if plan.fixed else plan.dtype
    return f"The base {base.name} needs {needed / 1e9:.1f} GB of memory in {dtype}"


def _advice(base: BaseInfo, is_full: bool) -> str:
    if is_full:
        return "Use the finetuning_type 'lora', or a smaller base."
    if base.slow:
        return "Use a smaller base."
    return (
        f"In four bits it needs about a third: tunesmith base add {base.path} "
        f"--name {base.name}-nf4 --quantize nf4, and tune that one."
    )
