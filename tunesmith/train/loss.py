"""Loss, token accuracy and the loss's gradient in one pass, without ever holding full logits.

Only supervised positions reach the head, a chunk at a time: each chunk's logits give loss,
accuracy and the gradient with respect to the hidden states (and to the head, where it is trained),
and are dropped.

What a sequence's loss weighs in the step's may depend on that very loss (preferences): a position's
gradient is linear in its weight, so it is formed for weight w and multiplied afterwards. A trained
head adds up over positions, so there the weights must be known before.

Shape suffixes: N supervised positions, S sequences, E hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.train.batches import MicroBatch

# Logits alive at once, elements: 64 MiB of fp32 on a CPU; a GPU wants larger products.
CHUNK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 27}


@dataclass(frozen=True)
class Head:
    logits: Callable[[Tensor], Tensor]
    """Hidden states (N, E) to scores (N, V)."""
    vocab_size: int
    weight: Tensor | None = None
    """(V, E): what the scores are formed with, where it is trained."""
    gradient: Tensor | None = None
    """(V, E), at least fp32: what its gradient is added to."""

    def chunks(self, hidden_NE: Tensor) -> list[slice]:
        size = max(1, CHUNK_ELEMENTS[hidden_NE.device.type] // self.vocab_size)
        return [slice(start, start + size) for start in range(0, hidden_NE.shape[0], size)]


@dataclass(frozen=True)
class Scores:
    """Sums over the supervised positions of each sequence, left on the device: adding them up
    waits for nothing. In float64, because preferences live on small differences of large sums."""

    loss_S: Tensor
    """sum(w * nll)"""
    correct_S: Tensor
    """How many positions where the most likely token is the right one."""


def scores(head: Head, hidden_NE: Tensor, batch: MicroBatch) -> Scores:
    """Loss and accuracy alone."""
    found = []
    with torch.no_grad():
        for rows in head.chunks(hidden_NE):
            logits_NV = _widen(head.logits(hidden_NE[rows]))
            nll_N = F.cross_entropy(logits_NV, batch.targets_N[rows], reduction="none")
            is_right_N = logits_NV.argmax(-1) == batch.targets_N[rows]
            found.append((batch.weights_N[rows] * nll_N, is_right_N))
    return _by_sequence(found, batch)


def backward(
    head: Head,
    hidden_NE: Tensor,
    batch: MicroBatch,
    coefficients: Callable[[Tensor], Tensor],
    *,
    are_constant: bool = False,
) -> Scores:
    """Adds a gradient to everything `hidden_NE` came from: that of sum(c * loss_S), where
    c = coefficients(loss_S) counts as constant; `are_constant` says that it looks at no loss."""
    ahead_N = _spread_ahead(head, hidden_NE, batch, coefficients, are_constant)
    found = []
    gradient_NE = torch.empty_like(hidden_NE)
    for rows in head.chunks(hidden_NE):
        leaf_NE = hidden_NE[rows].detach().requires_grad_()
        with torch.enable_grad():
            logits_NV = _widen(head.logits(leaf_NE))
            nll_N = F.cross_entropy(logits_NV, batch.targets_N[rows], reduction="none")
            weighed_N = batch.weights_N[rows] * nll_N
        if head.weight is None or ahead_N is None:
            (gradient_NE[rows],) = torch.autograd.grad(weighed_N.sum(), leaf_NE)
        else:
            total = (weighed_N * ahead_N[rows]).sum()
            gradient_NE[rows], of_head_VE = torch.autograd.grad(total, (leaf_NE, head.weight))
            assert head.gradient is not None, "a trained head has a gradient"
            head.gradient.add_(of_head_VE)
        is_right_N = logits_NV.detach().argmax(-1) == batch.targets_N[rows]
        found.append((weighed_N.detach(), is_right_N))
    sums = _by_sequence(found, batch)
    if ahead_N is None:
        spread_N = _spread(coefficients(sums.loss_S), batch)
        gradient_NE *= spread_N[:, None].to(gradient_NE.dtype)
    # Of this sum the gradient is `gradient_NE` exactly. Handing it to autograd as an argument would
    # import sympy first (0.3 s).
    torch.autograd.backward((hidden_NE * gradient_NE).sum())
    return sums


def _spread_ahead(
    head: Head,
    hidden_NE: Tensor,
    batch: MicroBatch,
    coefficients: Callable[[Tensor], Tensor],
    are_constant: bool,
) -> Tensor | None:
    """The coefficient (N) of each position for a trained head; None for a frozen one."""
    if head.weight is None:
        return None
    if are_constant:
        loss_S = torch.zeros(len(batch.counts_S), dtype=torch.float64, device=hidden_NE.device)
    else:
        loss_S = scores(head, hidden_NE, batch).loss_S
    return _spread(coefficients(loss_S), batch).to(
        torch.promote_types(hidden_NE.dtype, torch.float32)
    )


def _spread(values_S: Tensor, batch: MicroBatch) -> Tensor:
    """Each sequence's value for all its supervised positions (N)."""
    return values_S.repeat_interleave(batch.counts_S, output_size=len(batch.targets_N))


def _by_sequence(found: list[tuple[Tensor, Tensor]], batch: MicroBatch) -> Scores:
    loss_N, is_right_N = (torch.cat(parts).double() for parts in zip(*found, strict=True))
    loss_S, correct_S = (
        torch.segment_reduce(each, "sum", lengths=batch.counts_S, unsafe=True)
        for each in (loss_N, is_right_N)
    )
    return Scores(loss_S, correct_S)


def _widen(logits: Tensor) -> Tensor:
    """At least fp32; float64 stays, for tests of exactness."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
