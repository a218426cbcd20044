"""Where a run begins: fresh by a new plan, or at the newest good checkpoint by the old one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from tunesmith import bases
from tunesmith.bases import BaseInfo
from tunesmith.data.check import Dataset
from tunesmith.data.render import Renderer
from tunesmith.errors import JobError
from tunesmith.group.agreement import agreed, check_same_inputs, check_same_values, take_gpu
from tunesmith.group.sharded import spread, stored_type
from tunesmith.group.world import World
from tunesmith.ids import SystemClock
from tunesmith.jobdir.checkpoints import OPTIMIZER_FILE, Checkpoint, Standing
from tunesmith.jobdir.files import read_record, write_record
from tunesmith.jobdir.layout import PLAN_FILE
from tunesmith.jobdir.records import RecordError
from tunesmith.jobdir.row_losses import RowLosses
from tunesmith.jobdir.rows import rendered
from tunesmith.jobdir.spec import Spec
from tunesmith.model import fixed, learning
from tunesmith.model.adapter_files import targeted
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.memory import used_bytes
from tunesmith.train import attention, full
from tunesmith.train.batches import Corpus, Order
from tunesmith.train.checks import check_stops, check_targets
from tunesmith.train.fit import placed
from tunesmith.train.forecast import Forecast, fit_memory, forecast, num_fitting
from tunesmith.train.full import FullWeights
from tunesmith.train.job import Job
from tunesmith.train.objective import Objective, longest_unit, untaught
from tunesmith.train.optimizer import AdamW
from tunesmith.train.plan import Plan, decide
from tunesmith.train.sharded_full import ShardedFullWeights
from tunesmith.train.step import Forward, Trained

# The model that a job starts from, and the adapter that belongs to it.
Start = tuple[Forward, Adapter | None]


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
    world: World
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
    first_lesson: int = 1
    forecast: Forecast = field(init=False)
    objective: Objective = field(init=False)
    """On `train`; set by `preference.aim`."""
    valid_objective: Objective = field(init=False)

    @property
    def forward(self) -> Forward:
        gradient = self.trained.head_gradient if isinstance(self.trained, FullWeights) else None
        plan = self.plan
        return Forward(
            self.model, plan.attention, gradient, self.world, plan.recompute, plan.offload
        )

    def first_kept(self, spec: Spec) -> int:
        """The first epoch whose end is kept to be served."""
        return self.plan.n_epochs - max(1, spec.keep_checkpoints) + 1


def prepare(job: Job) -> Run:
    """Reads the rows, settles the plan, loads the model, takes up the newest checkpoint.

    Raises DataError, JobError, BaseModelError, AdapterError.
    """
    spec, world = job.spec, job.world
    take_gpu(spec, world)
    base = bases.describe(spec.base.path, spec.base.name, SystemClock())
    renderer = Renderer.load(base.path)
    max_tokens = min(spec.max_tokens or base.context_length, base.context_length)
    found = Dataset()
    train = Corpus(rendered(spec, "training_file", renderer, max_tokens, found))
    valid = Corpus(rendered(spec, "validation_file", renderer, max_tokens, Dataset()))
    check_stops(train, renderer.stop_ids)
    check_same_inputs(world, base, train, valid)
    plan = _old_plan(job, base) if world.is_first else None
    is_resumed = world.agree(plan is not None)
    plan = agreed(world, plan or decide(spec, base, train, world))
    if plan.fixed and not world.least(int(fixed.library() is not None)):
        text = (
            "Not every processor of this job multiplies in fixed point, in which it was to compute "
            "or began: it computes in fp32, more slowly, and losses differ by about 0.0001."
        )
        job.journal.message(f"warn:fixed:{spec.fence}", text, "warn")
        plan = replace(plan, fixed=False)
    torch.set_num_threads(plan.threads)
    learning.use(plan.compiled)
    plan = plan if plan.sharded else placed(job, base, plan)
    used = used_bytes(torch.device(plan.device))
    order = Order(spec.seed, train.num_rows, plan.batch_size, plan.n_epochs)
    job.progress.total_steps = plan.total_steps
    model, trained, optimizer, saved = _take_up(job, base, plan)
    done = range(1, job.progress.step + 1)
    job.progress.trained_tokens = sum(train.num_tokens(order.rows(step)) for step in done)
    if not is_resumed:
        kind, passed_over = attention.choose(model)
        if passed_over:
            job.journal.message("warn:attention", passed_over, "warn")
        plan = replace(plan, attention=kind)
    metrics = saved.metrics if saved else {}
    corpora = (train, valid if valid.num_rows else None)
    row_losses = RowLosses(job.dir, train.num_rows, plan.n_epochs)
    parts = (model, trained, optimizer, *corpora, renderer, row_losses)
    run = Run(plan, order, *parts, world, saved, metrics)
    longest = longest_unit(untaught(train, plan.beta), range(train.num_rows))
    if not is_resumed:
        run.plan = agreed(world, fit_memory(plan, run.forward, trained, longest))
    if world.is_first:
        write_record(run.plan, job.dir / PLAN_FILE)
    num_trainable = sum(parameter.numel() for parameter in trained.parameters())
    job.journal.message("plan", run.plan.text(num_trainable))
    for key, text in _remarks(base, run, found, longest):
        job.journal.message(key, text, "warn")
    run.forecast = forecast(run.plan, run.forward, trained, train, longest, used)
    return run


def _old_plan(job: Job, base: BaseInfo) -> Plan | None:
    """The plan of an earlier start, if this machine can follow it."""
    try:
        plan = read_record(Plan, job.dir / PLAN_FILE)
    except RecordError as error:
        text = f"The plan of the job is damaged and made anew; last digits may differ. {error}"
        job.journal.message(f"warn:plan:{job.spec.fence}", text, "warn")
        return None
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
    if plan.processes != job.world.size:
        text = (
            f"The job was trained by {plan.processes} processes and goes on with {job.world.size}: "
            "the last digits of what it learns may differ from those of an undisturbed one."
        )
        job.journal.message(f"warn:processes:{job.spec.fence}", text, "warn")
        plan = replace(plan, processes=job.world.size, sharded=plan.sharded and job.world.size > 1)
    if plan.compiled and learning.library() is None:
        text = (
            "There is no C compiler any more (see the job's log): torch computes what the job "
            "computed in C, more slowly, and last digits may differ."
        )
        job.journal.message(f"warn:compiler:{job.spec.fence}", text, "warn")
        plan = replace(plan, compiled=False, fixed=False)
    return plan


def _take_up(
    job: Job, base: BaseInfo, plan: Plan
) -> tuple[CausalModel, Trained, AdamW, Standing | None]:
    """Model and optimizer of the newest good checkpoint, with where it stood, or fresh ones."""
    newest = _newest(job)
    take_up = _take_up_weights if plan.finetuning_type == "full" else _take_up_adapter
    model, trained, optimizer = take_up(job, base, plan, newest)
    check_same_values(job.world, optimizer.values)
    if newest is None:
        return model, trained, optimizer, None
    optimizer.load_state(load_file(newest.path / OPTIMIZER_FILE))
    job.progress.step = newest.standing.step
    text = f"Resuming after step {newest.standing.step}/{plan.total_steps}"
    job.journal.message(f"resume:{job.spec.fence}", text)
    return model, trained, optimizer, newest.standing


def _newest(job: Job) -> Checkpoint | None:
    """The checkpoint to go on from; the first process picks it and removes the bad ones."""
    if not job.world.is_first:
        step = job.world.agree(0)
        good, _ = job.checkpoints.verified()
        return next((each for each in good if each.standing.step == step), None)
    job.checkpoints.sweep()
    good, bad = job.checkpoints.verified()
    for path, problem in bad:
        text = f"The checkpoint {path.name} cannot be used: {problem}. An older state is taken."
        job.journal.message(f"warn:{path.name}:{job.spec.fence}", text, "warn")
        job.checkpoints.discard(path)
    # They are in the order of their steps.
    newest = next((each for each in reversed(good) if each.resumable), None)
    job.world.agree(0 if newest is None else newest.standing.step)
    return newest


def _take_up_adapter(
    job: Job, base: BaseInfo, plan: Plan, newest: Checkpoint | None
) -> tuple[CausalModel, Trained, AdamW]:
    model = _load(job, base.path, plan)
    if newest is None:
        adapter = _start_adapter(job, model, plan)
    else:
        adapter = load_adapter(newest.path, model).train()
    return model, adapter, AdamW(adapter.parameters())


def _take_up_weights(
    job: Job, base: BaseInfo, plan: Plan, newest: Checkpoint | None
) -> tuple[CausalModel, Trained, AdamW]:
    # Those that are spread are read from the disk a layer at a time.
    dtype = stored_type(base.path) if plan.sharded else torch.float32
    device = "cpu" if plan.sharded else plan.device
    if newest is None:
        full.check_disk(job.dir, base.path, max(1, job.spec.keep_checkpoints))
        start = full.fresh(base.path, dtype, device, job.spec.start_adapter)
    else:
        start = full.resumed(newest.path, dtype, device)
    weights = (
        ShardedFullWeights(start, plan.torch_dtype, plan.device, job.world)
        if plan.sharded
        else FullWeights(start, plan.torch_dtype, job.world)
    )
    return weights.model, weights, weights.optimizer


def _load(job: Job, directory: Path, plan: Plan) -> CausalModel:
    """A frozen model, where the plan wants it."""
    if plan.sharded:
        return spread(directory, plan.torch_dtype, plan.device, job.world)
    return load_model(directory, dtype=plan.torch_dtype, device=plan.device, fixed=plan.fixed)


def load_start(job: Job, run: Run) -> Start:
    """The model that the job started from, whatever has become of it: weights and adapter."""
    plan, model = run.plan, run.model
    if isinstance(run.trained, FullWeights):
        model = _load(job, job.spec.base.path, plan)
    start = job.spec.start_adapter
    adapter = None if start is None else load_adapter(start, model)
    return Forward(model, plan.attention, world=run.world), adapter


def _start_adapter(job: Job, model: CausalModel, plan: Plan) -> Adapter:
    if job.spec.start_adapter is None:
        return fresh_adapter(model, plan, job.spec.seed)
    adapter = load_adapter(job.spec.start_adapter, model).train()
    check_targets(adapter, model, job.spec.hyperparameters.get("lora_targets"))
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


def _remarks(base: BaseInfo, run: Run, found: Dataset, longest: int) -> Iterator[tuple[str, str]]:
    """What to know about the data, the base and the machine, each with the key of its event."""
    plan = run.plan
    if base.slow:
        yield (
            "warn:slow",
            f"{base.name} belongs to a family without a decoder of our own: it runs through "
            "transformers, which is slower.",
        )
    for number, text in enumerate(found.warnings, 1):
        yield f"warn:data:{number}", text
    if plan.batch_size < plan.processes:
        yield (
            "warn:batch",
            f"A step of {plan.batch_size} keeps only {plan.batch_size} of {plan.processes} "
            "processes busy: a larger batch_size is as fast.",
        )
    if plan.recompute:
        yield (
            "warn:recompute",
            "Memory is short: each layer is computed twice instead of being kept, which takes "
            "about a third longer. A smaller base or shorter examples would not need it.",
        )
    # A CPU's memory gives no error: the system ends the process, so this is said beforehand.
    fitting = longest if longest <= plan.micro_tokens else num_fitting(run.forward, run.trained)
    if fitting < longest:
        yield (
            "warn:memory",
            f"The longest {'example' if plan.beta is None else 'pair'} has {longest} tokens; "
            f"memory may hold about {fitting} at once. If the job ends without a reason, shorten "
            "the longest examples or use a smaller base.",
        )
