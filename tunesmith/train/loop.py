"""Tuning by any method: the recipe, read from top to bottom (objective.py says what is lowered).

Left out on purpose: loader workers (rows are rendered once, in memory), early stopping, evaluation
by generation (a job of its own).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tunesmith.group.watch import Request
from tunesmith.jobdir.checkpoints import OPTIMIZER_FILE, Standing
from tunesmith.jobdir.outcome import Result
from tunesmith.train.advice import tell_best, tell_if_rising, tell_if_unlearned
from tunesmith.train.answers import report_answer, take_samples
from tunesmith.train.checks import check_finite, check_gradients, check_reference
from tunesmith.train.full import FullWeights
from tunesmith.train.job import Job
from tunesmith.train.objective import Means, longest_unit
from tunesmith.train.optimizer import learning_rate
from tunesmith.train.preference import aim
from tunesmith.train.shortage import within_memory
from tunesmith.train.start import Run, prepare
from tunesmith.train.step import accumulate, evaluate, seed_step

VALIDATE_EVERY = 10
# Of the job's time, what writing safety copies of whole models may take.
SAVE_SHARE = 0.05
# Passes that time a step, and how long one may take, seconds, if it has more than a row.
NUM_TRIALS, TRIAL_S = 3, 0.5


def train(job: Job) -> Result:
    """Tunes a model by the job's spec, from its newest good checkpoint if it has any.

    Raises DataError, JobError, BaseModelError or AdapterError for what no retry would change, and
    Fenced where another trainer has taken over.
    """
    run = prepare(job)
    if asked := aim(job, run):
        return stop(job, run, asked)
    rehearse(job, run)
    for step in range(job.progress.step + 1, run.plan.total_steps + 1):
        if asked := job.watch.request():
            return stop(job, run, asked)
        learn(job, run, step)
        epoch = run.order.epoch_ended_by(step)
        validate(job, run, step, epoch)
        job.watch.check_fence()
        job.journal.metrics(step, run.plan.total_steps, run.metrics)
        if epoch:
            tell_if_rising(job, epoch)
        if epoch and epoch >= run.first_kept(job.spec):
            save(job, run, servable=True)
            take_samples(job, run)
        elif is_save_due(job, run):
            save(job, run, servable=False)
    report_answer(job, run)
    result = replace(job.result("succeeded"), took=tell_what_it_took(job, run))
    tell_best(job, run.order, result.checkpoints)
    tell_if_unlearned(job, run.order, run.row_losses)
    return result


def learn(job: Job, run: Run, step: int) -> None:
    """One optimizer step; leaves its figures in the run."""
    rows = run.order.rows(step)
    began_s = time.monotonic()
    means = form_gradient(job, run, rows, step)
    check_finite(means, "training", step, run.plan.total_steps)
    if step == run.first_lesson:
        check_gradients(run.trained)
    if step == 1 and not run.plan.lora_dropout:
        check_reference(run.objective, rows, means, run.plan.dtype)
    run.optimizer.update(learning_rate(run.plan.learning_rate, step, run.plan.total_steps))
    run.metrics = means.named("train")
    run.row_losses.record((step - 1) * run.plan.batch_size, rows, means.row_losses)
    job.progress.step = step
    job.progress.trained_tokens += run.train.num_tokens(rows)
    run.num_timed += 1
    run.step_s += (time.monotonic() - began_s - run.step_s) / run.num_timed


def form_gradient(job: Job, run: Run, rows: Sequence[int], step: int) -> Means:
    """Leaves the gradient of the rows in the optimizer."""

    def forwards_and_backwards(max_tokens: int) -> Means:
        if run.plan.lora_dropout:
            # Of several processes each drops other positions.
            seed_step(job.spec.seed, step * job.world.size + job.world.rank)
        return accumulate(run.forward, run.trained, run.optimizer, run.objective, rows, max_tokens)

    return within_memory(job, run, run.objective, rows, forwards_and_backwards)


def validate(job: Job, run: Run, step: int, epoch: int | None) -> None:
    """One batch of the validation file now and then, the whole file where an epoch ends."""
    valid = run.valid
    if valid is None or not (epoch or step % VALIDATE_EVERY == 0):
        return
    batch_size = min(run.plan.batch_size, valid.num_rows)
    first = step // VALIDATE_EVERY * batch_size
    score(job, run, "valid", [row % valid.num_rows for row in range(first, first + batch_size)])
    if epoch:
        score(job, run, "full_valid", range(valid.num_rows))


def score(job: Job, run: Run, phase: str, rows: Sequence[int]) -> None:
    """Adds the figures of these rows of the validation file to the run's."""
    given = run.valid_objective, rows
    means = within_memory(job, run, *given, partial(evaluate, run.forward, run.trained, *given))
    check_finite(means, "validation", job.progress.step, run.plan.total_steps)
    run.metrics |= means.named(phase)


def stop(job: Job, run: Run, asked: Request) -> Result:
    """Ends between two steps. All but a cancelled job keep what was learned."""
    if asked == "cancel":
        return job.result("cancelled")
    if job.progress.step > 0:
        save(job, run, servable=asked == "pause")
        if asked == "pause":
            take_samples(job, run)
    return job.result("paused" if asked == "pause" else "interrupted")


def is_save_due(job: Job, run: Run) -> bool:
    """By the clock of the first process, for all; whole models more seldom where they take long."""
    long_s = run.save_s / SAVE_SHARE if isinstance(run.trained, FullWeights) else 0.0
    since_s = time.monotonic() - run.saved_at_s
    return bool(job.world.agree(since_s >= max(job.spec.save_every_s, long_s)))


def save(job: Job, run: Run, *, servable: bool) -> None:
    """A checkpoint after the last step, unless there is one; removes those it makes superfluous."""
    step = job.progress.step
    if run.saved and run.saved.step == step and (run.saved.servable or not servable):
        return
    job.watch.check_fence()
    began_s = time.monotonic()
    standing = Standing(step, run.order.epoch_ended_by(step), servable, dict(run.metrics))
    moments = run.optimizer.state()
    weights = run.trained.whole() if isinstance(run.trained, FullWeights) else {}
    if job.world.is_first:
        job.journal.sync()
        run.row_losses.save()
        job.checkpoints.save(standing, partial(write_checkpoint, job, run, moments, weights))
        job.checkpoints.prune(max(1, job.spec.keep_checkpoints))
    run.saved, run.saved_at_s = standing, time.monotonic()
    run.save_s = run.saved_at_s - began_s


def write_checkpoint(
    job: Job,
    run: Run,
    moments: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    directory: Path,
) -> None:
    """What is served, an adapter's two files or a whole model, and what a resume needs beside."""
    base = job.spec.base
    save_file({name: each.cpu() for name, each in moments.items()}, directory / OPTIMIZER_FILE)
    if isinstance(run.trained, FullWeights):
        run.trained.save(directory, base.path, run.renderer.stop_ids, weights)
    else:
        transposed = getattr(run.model, "transposed", False)
        run.trained.save(directory, base.name, transposed=transposed)


def rehearse(job: Job, run: Run) -> None:
    """Rows go through before the first step, and nothing is learned: on a GPU the longest, so that
    one that is too small says so now, then typical ones, which tell how long the job will take."""
    is_fresh = job.progress.step == 0
    if run.plan.device == "cuda" and is_fresh:
        rows = range(run.train.num_rows)
        ordered = sorted(rows, key=lambda row: longest_unit(run.objective, [row]), reverse=True)
        form_gradient(job, run, ordered[: run.plan.batch_size], step=0)
    seconds = step_seconds(job, run) * run.plan.total_steps
    run.forecast = replace(run.forecast, seconds=seconds)
    if is_fresh:
        job.journal.message("forecast", run.forecast.text(), data=asdict(run.forecast))


def step_seconds(job: Job, run: Run) -> float:
    """How long a step takes, by the fastest of some passes: of a row for each process first, which
    also warms up, then of as many rows as there is time for."""
    batch_size, row_s = run.plan.batch_size, math.inf
    num = min(run.plan.processes, batch_size)
    for _ in range(NUM_TRIALS):
        rows, began_s = run.train.typical(num), time.perf_counter()
        form_gradient(job, run, rows, step=0)
        # An update moves about as much memory.
        float(run.optimizer.clip() + run.optimizer.clip())
        pass_s = job.world.agree(int(1e6 * (time.perf_counter() - began_s))) / 1e6
        row_s = min(row_s, pass_s / len(rows))
        if pass_s > TRIAL_S:
            break
        num = max(num, min(batch_size, int(num * TRIAL_S / pass_s)))
    return row_s * batch_size


def tell_what_it_took(job: Job, run: Run) -> dict[str, float]:
    """How far off the forecast was; nothing where no step was left to this process."""
    if not run.num_timed:
        return {}
    seconds = run.step_s * run.plan.total_steps
    text, took = run.forecast.compared(seconds, run.model.device)
    job.journal.message("took", text, data=took)
    return took
