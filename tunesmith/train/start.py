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
from tunesmith.model.adapter_files import targeted
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter
from tunesmith.train import attention, full
from tunesmith.train import spec as files
from tunesmith.train.batches import Corpus, Order
from tunesmith.train.checkpoint import Checkpoint, Standing
from tunesmith.train.checks import check_stops
from tunesmith.train.full import FullWeights
from tunesmith.train.insight import RowLosses
from tunesmith.train.job import Job
from tunesmith.train.memory import available_bytes
from tunesmith.train.objective import Objective
from tunesmith.train.optimizer import AdamW
from tunesmith.train.plan import Plan, decide, fit_memory, num_fitting_tokens
from tunesmith.train.rows import rendered
from tunesmith.train.spec import Spec
from tunesmith.train.step import Forward, Trained

# Of the job's time, what writing safety copies may take.
SAVE_SHARE = 0.05


@dataclass
class Run:
    """What the loop works on."""

    plan: Plan
    order: Order
    model: CausalModel
    trained: Trained
    optimizer: AdamW
    train: Corpus
    valid: Corpus | None
    renderer: Renderer
    row_losses: RowLosses
    saved: Standing | None
    """Of the newest checkpoint."""
    metrics: dict[str, float]
    """Of the last step."""
    saved_at_s: float = field(default_factory=time.monotonic)
    save_s: float = 0.0
    """How long the last checkpoint took to write."""
    num_timed: int = 0
    step_s: float = 0.0
    """How long a step takes: the mean of this process's."""
    objective: Objective = field(init=False)
    """On `train`; set by `preference.aim`."""
    valid_objective: Objective = field(init=False)

    @property
    def forward(self) -> Forward:
        gradient = self.trained.head_gradient if isinstance(self.trained, FullWeights) else None
        return Forward(self.model, self.plan.attention, gradient)

    def save_every_s(self, spec: Spec) -> float:
        """Seconds between safety copies; of whole models more, where writing one takes long."""
        is_large = isinstance(self.trained, FullWeights)
        return max(spec.save_every_s, self.save_s / SAVE_SHARE if is_large else 0.0)

    def time_step(self, taken_s: float) -> None:
        self.num_timed += 1
        self.step_s += (taken_s - self.step_s) / self.num_timed


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
    order = Order(spec.seed, train.num_rows, plan.batch_size, plan.n_epochs)
    job.progress.total_steps = plan.total_steps
    model, trained, optimizer, saved = _take_up(job, base, plan)
    done = range(1, job.progress.step + 1)
    job.progress.trained_tokens = sum(train.num_tokens(order.rows(step)) for step in done)
    if not is_resumed:
        plan = fit_memory(_with_attention(job, plan, model), model)
        files.write(plan, job.dir / files.PLAN_FILE)
    _announce(job, base, plan, trained, found)
    _warn_of_memory(job, found.max_tokens, num_fitting_tokens(model, plan.torch_dtype))
    metrics = saved.metrics if saved else {}
    corpora = (train, valid if valid.num_rows else None)
    row_losses = RowLosses(job.dir, train.num_rows, plan.n_epochs)
    parts = (model, trained, optimizer, *corpora, renderer, row_losses)
    return Run(plan, order, *parts, saved, metrics)


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


def _take_up(
    job: Job, base: BaseInfo, plan: Plan
) -> tuple[CausalModel, Trained, AdamW, Standing | None]:
    """Model and optimizer of the newest good checkpoint, with where it stood, or fresh ones."""
    job.checkpoints.sweep()
    good, bad = job.checkpoints.verified()
    for path, problem in bad:
        text = f"The checkpoint {path.name} cannot be used: {problem}. An older state is taken."
        job.journal.message(f"warn:{path.name}:{job.spec.fence}", text, "warn")
        job.checkpoints.discard(path)
    newest = max((each for each in good if each.resumable), key=_step, default=None)
    take_up = _take_up_weights if plan.finetuning_type == "full" else _take_up_adapter
    model, trained, optimizer = take_up(job, base, plan, newest)
    if newest is None:
        return model, trained, optimizer, None
    optimizer.load_state(newest.moments())
    job.progress.step = newest.standing.step
    text = f"Resuming after step {newest.standing.step}/{plan.total_steps}"
    job.journal.message(f"resume:{job.spec.fence}", text)
    return model, trained, optimizer, newest.standing


def _step(checkpoint: Checkpoint) -> int:
    return checkpoint.standing.step


def _take_up_adapter(
    job: Job, base: BaseInfo, plan: Plan, newest: Checkpoint | None
) -> tuple[CausalModel, Trained, AdamW]:
    model = load_model(base.path, dtype=plan.torch_dtype, device=plan.device)
    if newest is None:
        adapter = _start_adapter(job, model, plan)
    else:
        adapter = load_adapter(newest.path, model).train()
    return model, adapter, AdamW(adapter.parameters())


def _take_up_weights(
    job: Job, base: BaseInfo, plan: Plan, newest: Checkpoint | None
) -> tuple[CausalModel, Trained, AdamW]:
    free_bytes = available_bytes(torch.device(plan.device))
    full.check_memory(base.num_parameters, plan.torch_dtype, free_bytes)
    if newest is None:
        full.check_disk(job.dir, base.path, max(1, job.spec.keep_checkpoints))
        start = job.spec.start_adapter
        weights = full.fresh(base.path, plan.torch_dtype, plan.device, start)
    else:
        weights = full.resumed(newest.path, plan.torch_dtype, plan.device)
    return weights.model, weights, weights.optimizer


def load_start(job: Job, run: Run) -> tuple[Forward, Adapter | None]:
    """The model that the job started from, whatever has become of it: weights and adapter."""
    plan, model = run.plan, run.model
    if isinstance(run.trained, FullWeights):
        model = load_model(job.spec.base.path, dtype=plan.torch_dtype, device=plan.device)
    start = job.spec.start_adapter
    adapter = None if start is None else load_adapter(start, model)
    return Forward(model, plan.attention), adapter


def _start_adapter(job: Job, model: CausalModel, plan: Plan) -> Adapter:
    if job.spec.start_adapter is None:
        return fresh_adapter(model, plan, job.spec.seed)
    adapter = load_adapter(job.spec.start_adapter, model).train()
    adapter.spec = replace(adapter.spec, dropout=plan.lora_dropout)
    return adapter


def fresh_adapter(model: CausalModel, plan: Plan, seed: int) -> Adapter:
    """Raises JobError where the base has no such adapter."""
    shape = plan.lora
    if shape.dora and getattr(model, "transposed", False):
        raise JobError(
            "DoRA is not offered for this family of models, whose weights are transposed. Use the "
            "finetuning_type 'lora'.",
            code="invalid_hyperparameters",
            param="hyperparameters.finetuning_type",
        )
    linears = {name: model.linears[name] for name in targeted(model.linears, plan.lora_targets)}
    adapter = Adapter.create(linears, shape, seed, model.weights)
    return adapter.to(torch.float32, model.device).train()


def load_adapter(directory: Path, model: CausalModel) -> Adapter:
    """In fp32, for the job to go on with. Raises AdapterError."""
    return Adapter.load(
        directory, model.linears, untrained_ok=True, device=model.device, weights=model.weights
    )


def _announce(job: Job, base: BaseInfo, plan: Plan, trained: Trained, found: Dataset) -> None:
    """Tells the user what was decided, and what to know about the data and the base."""
    num_trainable = sum(parameter.numel() for parameter in trained.parameters())
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
