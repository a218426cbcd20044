"""One optimizer step, and the same pass without learning.

Shape suffixes: see batches.py and loss.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.model.decoder import LowRankUpdate
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.train import loss
from tunesmith.train.attention import Kind, hidden
from tunesmith.train.batches import Corpus, MicroBatch, micro_batches
from tunesmith.train.optimizer import AdamW


@dataclass(frozen=True)
class Means:
    """Per supervised token, over all sequences of a pass."""

    loss: float
    """Weighted by the examples' weights."""
    accuracy: float
    """The share of tokens that the model finds the most likely, 0 to 1."""
    gradient_norm: float = 0.0
    """Before clipping."""

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@dataclass(frozen=True)
class Forward:
    """How sequences go through a model."""

    model: CausalModel
    attention: Kind

    @property
    def head(self) -> loss.Head:
        return loss.Head(self.model.logits, self.model.vocab_size)

    def supervised(self, batch: MicroBatch, lora: LowRankUpdate | None) -> Tensor:
        """Hidden states of the supervised positions (N, E)."""
        hidden_TE = hidden(self.model, batch, self.attention, lora)
        return hidden_TE[batch.index_N]


def accumulate(
    forward: Forward,
    adapter: Adapter,
    optimizer: AdamW,
    corpus: Corpus,
    rows: Sequence[int],
    max_tokens: int,
) -> Means:
    """Leaves the clipped gradient of the rows' mean loss in the optimizer.

    Waits for the device once, at its end.
    """
    optimizer.zero_gradient()
    total = corpus.total_weight(rows)
    sums = [
        loss.backward(
            forward.head,
            forward.supervised(batch, adapter),
            batch.targets_N,
            batch.weights_N,
            total,
        )
        for batch in _on_device(forward.model, corpus, rows, max_tokens)
    ]
    norm = optimizer.clip()
    return _means(sums, total, corpus.num_supervised(rows), norm)


def evaluate(
    forward: Forward, adapter: Adapter, corpus: Corpus, rows: Sequence[int], max_tokens: int
) -> Means:
    """Loss and accuracy on the rows, without dropout."""
    training, adapter.training = adapter.training, False
    try:
        with torch.no_grad():
            sums = [
                loss.scores(
                    forward.head,
                    forward.supervised(batch, adapter),
                    batch.targets_N,
                    batch.weights_N,
                )
                for batch in _on_device(forward.model, corpus, rows, max_tokens)
            ]
    finally:
        adapter.training = training
    return _means(sums, corpus.total_weight(rows), corpus.num_supervised(rows))


def seed_step(seed: int, step: int) -> None:
    """Fixes the dropout of a step, whatever ran before it: a resume needs no generator state."""
    digest = hashlib.sha256(f"tunesmith/{seed}/{step}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _on_device(
    model: CausalModel, corpus: Corpus, rows: Sequence[int], max_tokens: int
) -> list[MicroBatch]:
    units = [[sequence] for sequence in corpus.sequences(rows)]
    return [batch.to(model.device) for batch in micro_batches(corpus, units, max_tokens)]


def _means(
    sums: list[loss.Scores], total_weight: float, num_supervised: int, norm: Tensor | None = None
) -> Means:
    found = [
        torch.stack([each.loss for each in sums]).sum(),
        torch.stack([each.correct for each in sums]).sum(),
    ]
    if norm is not None:
        found.append(norm)
    values = torch.stack([value.double() for value in found]).tolist()
    return Means(values[0] / total_weight, values[1] / num_supervised, *values[2:])
