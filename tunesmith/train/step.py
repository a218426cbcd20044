"""One optimizer step, and the same pass without learning.

Shape suffixes: see batches.py and loss.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunesmith.group.sharded import ShardedDecoder
from tunesmith.group.world import ALONE, World
from tunesmith.model.decoder import Decoder, LowRankUpdate
from tunesmith.model.fixed_decoder import FixedDecoder
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.train import loss
from tunesmith.train.attention import Kind, hidden
from tunesmith.train.batches import MicroBatch, longest_first, micro_batches, one_sequence
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
    world: World = ALONE
    """Each process takes its part of the rows; the figures are those of all rows."""
    recompute: bool = False
    """Layers keep only their input, and run again in the backward pass."""
    offload: bool = False
    """What is kept for the backward pass waits in the machine's memory."""

    @property
    def head(self) -> loss.Head:
        model = self.model
        weight = None if self.head_gradient is None else model.head
        is_plain = isinstance(model, Decoder) and model.config.logit_softcap is None
        plain = model.head.detach() if is_plain else None
        fixed = model.fixed_head if isinstance(model, FixedDecoder) else None
        return loss.Head(model.logits, model.vocab_size, weight, self.head_gradient, plain, fixed)

    def supervised(self, batch: MicroBatch, lora: LowRankUpdate | None) -> Tensor:
        """Hidden states of the supervised positions (N, E)."""
        with self._kept_elsewhere():
            wanted = batch.index_N
            given = (self.model, batch, self.attention, lora)
            return hidden(*given, recompute=self.recompute, places_N=wanted)

    @property
    def spread(self) -> ShardedDecoder | None:
        """The model, where its layers are spread over the processes."""
        return self.model if isinstance(self.model, ShardedDecoder) else None

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """True in the first process, which may then use the model without the others."""
        with self.spread.alone() if self.spread else nullcontext():
            yield self.world.is_first

    def passes(self, batches: list[MicroBatch], lora: LowRankUpdate | None) -> Iterator[MicroBatch]:
        """The batches; then, where layers are spread, passes for those that others have more."""
        num_idle = 0 if self.spread is None else self.world.most(len(batches)) - len(batches)
        yield from batches
        for _ in range(num_idle):
            idle = one_sequence(1, self.model.vocab_size).to(self.model.device)
            states_NE = self.supervised(idle, lora)
            if states_NE.requires_grad:
                torch.autograd.backward(states_NE, torch.zeros_like(states_NE))

    def in_memory(self) -> AbstractContextManager[object]:
        """See World.in_memory. Within a pass of spread layers nobody can be told of a shortage."""
        return self.world.in_memory() if self.spread is None else nullcontext()

    @property
    def shares(self) -> bool:
        """Whether sequences that begin the same may have that beginning once: not where what a
        position comes to depends on how long its sequence is (LongRoPE)."""
        if not isinstance(self.model, Decoder) or self.attention == "padded":
            return False
        return self.model.short_positions is None

    def _kept_elsewhere(self) -> AbstractContextManager[object]:
        if self.offload:
            return torch.autograd.graph.save_on_cpu()
        return nullcontext()


def accumulate(
    forward: Forward,
    trained: Trained,
    optimizer: AdamW,
    objective: Objective,
    rows: Sequence[int],
    max_tokens: int,
) -> Means:
    """Leaves the clipped gradient of the rows' mean loss in the optimizer.

    Every process knows the divisor: it has all rows, and computes its share of them.
    Waits for the device once, at its end.
    """
    optimizer.zero_gradient()
    divisor = objective.divisor(rows)
    found = []
    with forward.in_memory():
        batches = _own_batches(forward, objective, rows, max_tokens)
        for batch in forward.passes(batches, trained):

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
    forward.world.sum_(optimizer.gradient)
    norm = optimizer.clip()
    means = objective.means(rows, _sums(forward, objective, rows, found))
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
    with forward.in_memory():
        batches = _own_batches(forward, objective, rows, max_tokens)
        found = [
            (batch, loss.scores(forward.head, forward.supervised(batch, lora), batch))
            for batch in forward.passes(batches, lora)
        ]
    return _sums(forward, objective, rows, found)


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


def _own_batches(
    forward: Forward, objective: Objective, rows: Sequence[int], max_tokens: int
) -> list[MicroBatch]:
    """This process's part of the rows, on its device.

    Units are dealt out by length, the longest first, so that all parts are about as long.
    """
    units = longest_first(objective.corpus, objective.units(rows))
    own = forward.world.share(units)
    batches = micro_batches(objective.corpus, own, max_tokens, share=forward.shares)
    return [batch.to(forward.model.device) for batch in batches]


def _sums(
    forward: Forward,
    objective: Objective,
    rows: Sequence[int],
    found: list[tuple[MicroBatch, loss.Scores]],
) -> Sums:
    """What micro-batches gave, of all processes, brought to the CPU at once."""
    device = forward.model.device
    # Where two epochs meet, a step may have a row twice.
    sequences = list(dict.fromkeys(objective.corpus.sequences(rows)))
    places = {sequence: place for place, sequence in enumerate(sequences)}
    values_3S = torch.zeros(3, len(sequences), dtype=torch.float64, device=device)
    if found:
        own = [places[sequence] for batch, _ in found for sequence in batch.sequences]
        values_3S[0, own] = torch.cat([scores.loss_S for _, scores in found])
        values_3S[1, own] = torch.cat([scores.correct_S for _, scores in found])
        values_3S[2, own] = 1.0
    loss_S, correct_S, num_S = forward.world.sum_(values_3S)
    losses, corrects = torch.stack([loss_S / num_S, correct_S / num_S]).tolist()
    return Sums(
        dict(zip(sequences, losses, strict=True)), dict(zip(sequences, corrects, strict=True))
    )
