"""Invariants of a run that goes right: each has a name, a check and a message with the fix.

All of them stand for failures that other trainers let pass in silence: a model that never learns
to stop, an adapter that gets no gradient, a loss of NaN in a job that "succeeds".
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from typing import Any

from tunesmith.errors import JobError
from tunesmith.group.sharded import here
from tunesmith.model.adapter_files import targeted
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.train.batches import Corpus, Order
from tunesmith.train.full import FullWeights
from tunesmith.train.objective import Means, Objective, Preference


def check_stops(corpus: Corpus, stop_ids: Set[int]) -> None:
    """Every supervised span ends with a stop token, so that stopping is learned."""
    others = corpus.answer_ends() - stop_ids
    if others:
        raise JobError(
            f"Answers in the training file end with token {min(others)}, which does not stop the "
            "model: it would learn to go on for ever. The chat template of the base has to close "
            "each assistant turn with a stop token, and generation_config.json has to name it.",
            code="answer_without_stop",
        )


def first_lesson(order: Order, pairs: Corpus) -> int:
    """The first step with a gradient: pairs of equal answers have none."""
    for step in range(1, order.total_steps + 1):
        if any(map(pairs.differs, order.rows(step))):
            return step
    raise JobError(
        "The answers of every pair in the training file are equal: there is nothing to prefer. "
        "`tunesmith data fix` leaves such rows out; give others.",
        code="no_preference",
        param="training_file",
    )


def check_targets(adapter: Adapter, model: CausalModel, asked: Any) -> None:
    """An adapter that is continued adapts what was asked for. A list was compared before."""
    if asked not in ("all", "attention", "mlp"):
        return
    if set(targeted(model.linears, asked)) != set(adapter.a):
        there = ", ".join(sorted({name.rpartition(".")[2] for name in adapter.a}))
        raise JobError(
            f"The model to be continued has adapted {there}, so lora_targets {asked} would be "
            "another adapter. Leave lora_targets out, or start from the base model.",
            code="invalid_hyperparameters",
            param="hyperparameters.lora_targets",
        )


def check_gradients(trained: Adapter | FullWeights) -> None:
    """After the first backward pass every lora_B has a gradient, or every matrix of the model."""
    is_full = isinstance(trained, FullWeights)
    weights = trained.masters if isinstance(trained, FullWeights) else trained.b
    for name, weight in weights.items():
        # Norms and biases may go without.
        if weight.dim() > 1 and (weight.grad is None or not bool(here(weight.grad).any())):
            raise JobError(
                f"{name if is_full else f'The adapter of {name}'} gets no gradient: training would "
                "change nothing there. This is a fault of the program or of the base's weights "
                "(all zero?), not of the data.",
                code="no_gradient",
            )


def check_finite(means: Means, what: str, step: int, total_steps: int) -> None:
    """Loss and gradient are numbers; a job never goes on from NaN."""
    if not (math.isfinite(means.loss) and math.isfinite(means.gradient_norm)):
        raise JobError(
            f"The {what} loss is not finite at step {step} of {total_steps} (loss {means.loss}, "
            f"gradient norm {means.gradient_norm}). Lower learning_rate_multiplier, for example to "
            "a quarter, and create the job again.",
            code="non_finite_loss",
            param="hyperparameters.learning_rate_multiplier",
        )


# By what share rounding, in other micro-batches, may move log-probabilities from the reference's.
REFERENCE_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}


def check_reference(objective: Objective, rows: Sequence[int], means: Means, dtype: str) -> None:
    """Before anything is learned, the model gives every answer what the reference gave it."""
    if not isinstance(objective, Preference):
        return
    usual = float(objective.reference_S[objective.corpus.sequences(rows)].abs().mean())
    moved = max(abs(means.rewards[side]) for side in ("chosen", "rejected")) / objective.beta
    if moved > REFERENCE_TOLERANCE[dtype] * usual:
        raise JobError(
            f"The first margins are not zero: log-probabilities are {moved:.3g} away from those of "
            "the reference, which should be the model that the job starts from. This is a fault of "
            "the program, not of the data: please report it.",
            code="reference_differs",
        )
