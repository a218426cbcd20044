"""Invariants of a run that goes right: each has a name, a check and a message with the fix.

All of them stand for failures that other trainers let pass in silence: a model that never learns
to stop, an adapter that gets no gradient, a loss of NaN in a job that "succeeds".
"""

from __future__ import annotations

from collections.abc import Set

from tunesmith.errors import JobError
from tunesmith.model.lora import Adapter
from tunesmith.train.batches import Corpus
from tunesmith.train.objective import Means


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


def check_gradients(adapter: Adapter) -> None:
    """After the first backward pass every lora_B has a gradient."""
    for name, matrix in adapter.b.items():
        if matrix.grad is None or not bool(matrix.grad.any()):
            raise JobError(
                f"The adapter of {name} gets no gradient: training would change nothing there. "
                "This is a fault of the program or of the base's weights (all zero?), not of the "
                "data.",
                code="no_gradient",
            )


def check_finite(means: Means, step: int, total_steps: int) -> None:
    """Loss and gradient are numbers; a job never goes on from NaN."""
    if not means.is_finite:
        raise JobError(
            f"The training loss is not finite at step {step} of {total_steps} (loss {means.loss}, "
            f"gradient norm {means.gradient_norm}). Lower learning_rate_multiplier, for example to "
            "a quarter, and create the job again.",
            code="non_finite_loss",
            param="hyperparameters.learning_rate_multiplier",
        )
