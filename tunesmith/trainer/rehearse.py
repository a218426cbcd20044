"""A few steps of a job that is never created: how fast this machine trains, in how much memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from tunesmith.bases import BaseInfo
from tunesmith.data.estimate import Hyperparameters
from tunesmith.data.render import Example
from tunesmith.jobdir.spec import BaseRef, FileRef, Spec
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.memory import keep_freed_memory, used_bytes
from tunesmith.train import attention
from tunesmith.train.batches import Corpus, Order
from tunesmith.train.forecast import fit_memory, forecast
from tunesmith.train.full import FullWeights, fresh
from tunesmith.train.objective import Supervised, longest_unit
from tunesmith.train.optimizer import AdamW
from tunesmith.train.plan import Plan, decide
from tunesmith.train.start import fresh_adapter
from tunesmith.train.step import Forward, Trained, accumulate

MAX_STEPS = 200


@dataclass(frozen=True)
class Speed:
    tokens_per_s: float
    num_steps: int
    """That were measured."""
    peak_bytes: int
    """Expected of the job's process, or of the GPU's memory: its largest steps may not have run."""
    where: str
    """Such as "CPU, 2 threads, float32"."""


def rehearse(
    base: BaseInfo,
    examples: Sequence[Example],
    hyper: Hyperparameters,
    *,
    device: str = "auto",
    threads: int = 0,
    budget_s: float,
) -> Speed:
    """Trains a throw-away adapter, or model, for about `budget_s` seconds after a step to warm up.

    Raises JobError or BaseModelError; nothing is written.
    """
    keep_freed_memory()
    corpus = Corpus(examples)
    nothing = FileRef("", Path())
    spec = Spec(
        "estimate",
        0,
        BaseRef(base.name, base.path),
        nothing,
        0,
        # None stands for what other methods have.
        hyperparameters={name: value for name, value in asdict(hyper).items() if value is not None},
        device=device,
        threads=threads,
    )
    plan = decide(spec, base, corpus)
    torch.set_num_threads(plan.threads)
    used = used_bytes(torch.device(plan.device))
    model, trained, optimizer = fresh_start(base.path, plan)
    head_gradient = trained.head_gradient if isinstance(trained, FullWeights) else None
    forward = Forward(model, attention.choose(model)[0], head_gradient)
    objective = Supervised(corpus)
    longest = longest_unit(objective, range(corpus.num_rows))
    plan = fit_memory(plan, forward, trained, longest)
    forward = replace(forward, recompute=plan.recompute)
    expected = forecast(plan, forward, trained, corpus, longest, used)
    order = Order(0, corpus.num_rows, plan.batch_size, MAX_STEPS)
    num_steps = num_tokens = 0
    start = time.perf_counter()
    for step in range(1, min(MAX_STEPS, order.total_steps) + 1):
        rows = order.rows(step)
        accumulate(forward, trained, optimizer, objective, rows, plan.micro_tokens)
        optimizer.update(0.0)
        if step == 1:
            start = time.perf_counter()
            continue
        num_steps += 1
        num_tokens += corpus.num_tokens(rows)
        if time.perf_counter() - start > budget_s:
            break
    rate = num_tokens / (time.perf_counter() - start)
    where = "GPU" if plan.device == "cuda" else f"CPU, {plan.threads} threads"
    return Speed(rate, num_steps, expected.peak_bytes, f"{where}, {plan.dtype}")


def fresh_start(directory: Path, plan: Plan) -> tuple[CausalModel, Trained, AdamW]:
    """What a job would begin with on this base. Raises JobError or BaseModelError."""
    if plan.finetuning_type == "full":
        whole = fresh(directory, torch.float32, plan.device, None)
        weights = FullWeights(whole, plan.torch_dtype)
        return weights.model, weights, weights.optimizer
    model = load_model(directory, dtype=plan.torch_dtype, device=plan.device, fixed=plan.fixed)
    adapter = fresh_adapter(model, plan, 0)
    return model, adapter, AdamW(adapter.parameters())
