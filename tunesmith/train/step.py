"""One optimizer step, and the same pass without learning.

Shape suffixes: see batches.py and loss.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunesmith.model.decoder import LowRankUpdate
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.train import loss
from tunesmith.train.attention import Kind, hidden
from tunesmith.train.batches import MicroBatch, micro_batches
from tunesmith.train.full import FullWeights
from tunesmith.train.objective import Means, Objective, Sums
from tunesmith.train.optimizer import AdamW

# What a job changes: an adapter beside the frozen weights, or the weights.
Trained = Adapter | FullWeights


@dataclass(frozen=True)
class Forward:
    """How sequences go through a model."""

    model: CausalModel
    attention: Kind
    head_gradient: Tensor | None = None
    """Where the gradient of the model's head adds up, if the head is trained."""

    @property
    def head(self) -> loss.Head:
        weight = None if self.head_gradient is None else self.model.head
        return loss.Head(self.model.logits, self.model.vocab_size, weight, self.head_gradient)

    def supervised(self, batch: MicroBatch, lora: LowRankUpdate | None) -> Tensor:
        """Hidden states of the supervised positions (N, E)."""
        hidden_TE = hidden(self.model, batch, self.attention, lora)
        return hidden_TE[batch.index_N]


def accumulate(
    forward: Forward,
    trained: Trained,
    optimizer: AdamW,
    objective: Objective,
    rows: Sequence[int],
    max_tokens: int,
) -> Means:
    """Leaves the clipped gradient of the rows' mean loss in the optimizer.

    Waits for the device once, at its end.
    """
    optimizer.zero_gradient()
    divisor = objective.divisor(rows)
    found = []
    for batch in _on_device(forward.model, objective, rows, max_tokens):

        def coefficients(loss_S: Tensor, batch: MicroBatch = batch) -> Tensor:
            return objective.coefficients(batch, loss_S) / divisor

        scores = loss.backward(
            forward.head,
            forward.supervised(batch, trained),
            batch,
            coefficients,
            are_constant=not objective.looks_at_losses,
        )
        found.append((batch, scores))
    norm = optimizer.clip()
    means = objective.means(rows, _sums(found))
    return replace(means, gradient_norm=float(norm))


@torch.no_grad()
def sums(
    forward: Forward,
    lora: LowRankUpdate | None,
    objective: Objective,
    rows: Sequence[int],
    max_tokens: int,
) -> Sums:
    """Loss and right tokens of each of the rows' sequences."""
    return _sums(
        [
            (batch, loss.scores(forward.head, forward.supervised(batch, lora), batch))
            for batch in _on_device(forward.model, objective, rows, max_tokens)
        ]
    )


def evaluate(
    forward: Forward, trained: Trained, objective: Objective, rows: Sequence[int], max_tokens: int
) -> Means:
    """Loss and accuracy on the rows, without dropout."""
    training, trained.training = trained.training, False
    try:
        return objective.means(rows, sums(forward, trained, objective, rows, max_tokens))
    finally:
        trained.training = training


def seed_step(seed: int, step: int) -> None:
    """Fixes the dropout of a step, whatever ran before it: a resume needs no generator state."""
    digest = hashlib.sha256(f"tunesmith/{seed}/{step}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _on_device(
    model: CausalModel, objective: Objective, rows: Sequence[int], max_tokens: int
) -> list[MicroBatch]:
    batches = micro_batches(objective.corpus, objective.units(rows), max_tokens)
    return [batch.to(model.device) for batch in batches]


def _sums(found: list[tuple[MicroBatch, loss.Scores]]) -> Sums:
    """What micro-batches gave, brought to the CPU at once."""
    sequences = [sequence for batch, _ in found for sequence in batch.sequences]
    values_2S = torch.stack(
        [
            torch.cat([scores.loss_S for _, scores in found]),
            torch.cat([scores.correct_S for _, scores in found]),
        ]
    )
    losses, corrects = values_2S.tolist()
    return Sums(
        dict(zip(sequences, losses, strict=True)), dict(zip(sequences, corrects, strict=True))
    )
