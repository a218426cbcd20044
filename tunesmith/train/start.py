"""Where a run begins: fresh by a new plan, or at the newest good checkpoint by the old one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tunesmith import bases
from tunesmith.bases import BaseInfo
from tunesmith.data.check import Dataset
from tunesmith.data.render import Renderer
from tunesmith.errors import JobError
from tunesmith.ids import SystemClock
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter
from tunesmith.train import attention
from tunesmith.train import spec as files
from tunesmith.train.batches import Corpus, Order
from tunesmith.train.checkpoint import Standing
from tunesmith.train.checks import check_stops
from tunesmith.train.job import Job
from tunesmith.train.optimizer import AdamW
from tunesmith.train.plan import Plan, decide, fit_memory, num_fitting_tokens
from tunesmith.train.rows import rendered
from tunesmith.train.step import Forward


@dataclass
class Run:
    """What the loop works on."""

    plan: Plan
    order: Order
    model: CausalModel
    adapter: Adapter
    optimizer: AdamW
    train: Corpus
    valid: Corpus | None
    stop_ids: frozenset[int]
    saved: Standing | None
    """Of the newest checkpoint."""
    metrics: dict[str, float]
    """Of the last step."""
    saved_at_s: float = field(default_factory=time.monotonic)

    @property
    def forward(self) -> Forward:
        return Forward(self.model, self.plan.attention)


def prepare(job: Job) -> Run:
    """Reads the rows, settles the plan, loads the model, takes up the newest checkpoint.

    Raises DataError, JobError, BaseModelError, AdapterError.
    """
    spec = job.spec
    base = bases.describe(spec.base.path, spec.base.name, SystemClock())
    renderer = Renderer.load(base.path)
    max_tokens = min(spec.max_tokens or base.context_length, base.context_length)
    found = Dataset()
    train = Corpus(rendered(spec, "training_file", renderer, max_tokens, found))
    valid = Corpus(rendered(spec, "validation_file", renderer, max_tokens, Dataset()))
    check_stops(train, renderer.stop_ids)
    plan = _old_plan(job, base)
    is_resumed = plan is not None
    plan = plan or decide(spec, base, train)
    torch.set_num_threads(plan.threads)
    model = load_model(base.path, dtype=plan.torch_dtype, device=plan.device)
    order = Order(spec.seed, train.num_rows, plan.batch_size, plan.n_epochs)
    job.progress.total_steps = plan.total_steps
    adapter, optimizer, saved = _take_up(job, model, plan)
    done = range(1, job.progress.step + 1)
    job.progress.trained_tokens = sum(train.num_tokens(order.rows(step)) for step in done)
    if not is_resumed:
        # The adapter a job starts from keeps its shape.
        plan = replace(plan, lora_rank=adapter.spec.rank, lora_alpha=adapter.spec.alpha)
        plan = fit_memory(_with_attention(job, plan, model), model)
        files.write(plan, job.dir / files.PLAN_FILE)
    _announce(job, base, plan, adapter, found)
    _warn_of_memory(job, found.max_tokens, num_fitting_tokens(model, plan.torch_dtype))
    metrics = saved.metrics if saved else {}
    corpora = (train, valid if valid.num_rows else None)
    return Run(plan, order, model, adapter, optimizer, *corpora, renderer.stop_ids, saved, metrics)


def _with_attention(job: Job, plan: Plan, model: CausalModel) -> Plan:
    """The plan with the attention that was proven on the model; a slower one is told."""
    kind, passed_over = attention.choose(model)
    if passed_over:
        job.journal.message("warn:attention", passed_over, "warn")
    return replace(plan, attention=kind)


def _old_plan(job: Job, base: BaseInfo) -> Plan | None:
    """The plan of an earlier start, if this machine can follow it."""
    plan = files.read(Plan, job.dir / files.PLAN_FILE)
    if plan is None:
        return None
    if plan.base_fingerprint != base.fingerprint:
        raise JobError(
            f"The base model '{base.name}' has changed since the job started. Put the old files "
            "back, or create the job again.",
            code="base_model_changed",
            param="model",
        )
    if plan.device == "cuda" and not torch.cuda.is_available():
        text = "The GPU this job started on is gone; it goes on on the CPU."
        job.journal.message(f"warn:device:{job.spec.fence}", text, "warn")
        return None
    return plan


def _take_up(job: Job, model: CausalModel, plan: Plan) -> tuple[Adapter, AdamW, Standing | None]:
    """Adapter and optimizer of the newest good checkpoint, with where it stood, or fresh ones."""
    job.checkpoints.sweep()
    good, bad = job.checkpoints.verified()
    for path, problem in bad:
        text = f"The checkpoint {path.name} cannot be used: {problem}. An older state is taken."
        job.journal.message(f"warn:{path.name}:{job.spec.fence}", text, "warn")
        job.checkpoints.discard(path)
    if not good:
        adapter = _fresh_adapter(job, model, plan)
        return adapter, AdamW(adapter.parameters()), None
    newest = good[-1]
    adapter = _load(newest.path, model)
    optimizer = AdamW(adapter.parameters())
    optimizer.load_state(newest.moments())
    job.progress.step = newest.standing.step
    text = f"Resuming after step {newest.standing.step}/{plan.total_steps}"
    job.journal.message(f"resume:{job.spec.fence}", text)
    return adapter, optimizer, newest.standing


def _fresh_adapter(job: Job, model: CausalModel, plan: Plan) -> Adapter:
    if job.spec.start_adapter is None:
        shape = LoraSpec(plan.lora_rank, plan.lora_alpha, plan.lora_dropout)
        adapter = Adapter.create(model.linears, shape, job.spec.seed)
        return adapter.to(torch.float32, model.device).train()
    adapter = _load(job.spec.start_adapter, model)
    adapter.spec = replace(adapter.spec, dropout=plan.lora_dropout)
    return adapter


def _load(directory: Path, model: CausalModel) -> Adapter:
    adapter = Adapter.load(directory, model.linears, untrained_ok=True, device=model.device)
    return adapter.train()


def _announce(job: Job, base: BaseInfo, plan: Plan, adapter: Adapter, found: Dataset) -> None:
    """Tells the user what was decided, and what to know about the data and the base."""
    num_trainable = sum(parameter.numel() for parameter in adapter.parameters())
    job.journal.message("plan", plan.text(num_trainable))
    if base.slow:
        text = (
            f"{base.name} belongs to a family without a decoder of our own: it runs through "
            "transformers, which is slower."
        )
        job.journal.message("warn:slow", text, "warn")
    for number, text in enumerate(found.warnings, 1):
        job.journal.message(f"warn:data:{number}", text, "warn")


def _warn_of_memory(job: Job, longest: int, fitting: int) -> None:
    """A CPU's memory gives no error: the system ends the process, so this is said beforehand."""
    if longest > fitting:
        text = (
            f"The longest example has {longest} tokens; memory may hold about {fitting} at once. "
            "If the job ends without a reason, shorten the longest examples or use a smaller base."
        )
        job.journal.message("warn:memory", text, "warn")
