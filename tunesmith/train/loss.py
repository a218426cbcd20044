"""Loss, token accuracy and the loss's gradient in one pass, without ever holding full logits.

Only supervised positions reach the head, a chunk at a time: each chunk's logits give loss,
accuracy and the gradient with respect to the hidden states, and are dropped. The head is frozen,
so nothing else needs them. Per step the loss is sum(w * nll) / sum(w) over all its micro-batches,
which makes accumulation equal to one large batch.

Shape suffixes: N supervised positions, E hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits alive at once, elements: 64 MiB of fp32 on a CPU; a GPU wants larger products.
CHUNK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 27}


@dataclass(frozen=True)
class Head:
    logits: Callable[[Tensor], Tensor]
    """Hidden states (N, E) to scores (N, V)."""
    vocab_size: int

    def chunks(self, hidden_NE: Tensor) -> list[slice]:
        size = max(1, CHUNK_ELEMENTS[hidden_NE.device.type] // self.vocab_size)
        return [slice(start, start + size) for start in range(0, hidden_NE.shape[0], size)]


@dataclass(frozen=True)
class Scores:
    """Sums over supervised positions, left on the device: adding them up waits for nothing."""

    loss: Tensor
    """sum(w * nll)"""
    correct: Tensor
    """How many positions where the most likely token is the right one."""


def scores(head: Head, hidden_NE: Tensor, targets_N: Tensor, weights_N: Tensor) -> Scores:
    """Loss and accuracy alone."""
    loss, correct = _zeros(hidden_NE)
    with torch.no_grad():
        for rows in head.chunks(hidden_NE):
            logits_NV = _widen(head.logits(hidden_NE[rows]))
            nll_N = F.cross_entropy(logits_NV, targets_N[rows], reduction="none")
            loss += (weights_N[rows] * nll_N).sum()
            correct += (logits_NV.argmax(-1) == targets_N[rows]).sum()
    return Scores(loss, correct)


def backward(
    head: Head,
    hidden_NE: Tensor,
    targets_N: Tensor,
    weights_N: Tensor,
    total_weight: float,
) -> Scores:
    """Adds the gradient of sum(w * nll) / total_weight to everything `hidden_NE` came from."""
    loss, correct = _zeros(hidden_NE)
    gradient_NE = torch.empty_like(hidden_NE)
    for rows in head.chunks(hidden_NE):
        leaf_NE = hidden_NE[rows].detach().requires_grad_()
        with torch.enable_grad():
            logits_NV = _widen(head.logits(leaf_NE))
            nll_N = F.cross_entropy(logits_NV, targets_N[rows], reduction="none")
            chunk_loss = (weights_N[rows] * nll_N).sum()
        (gradient_NE[rows],) = torch.autograd.grad(chunk_loss / total_weight, leaf_NE)
        loss += chunk_loss.detach()
        correct += (logits_NV.detach().argmax(-1) == targets_N[rows]).sum()
    # Of this sum the gradient is `gradient_NE` exactly. Handing it to autograd as an argument would
    # import sympy first (0.3 s).
    torch.autograd.backward((hidden_NE * gradient_NE).sum())
    return Scores(loss, correct)


def _zeros(hidden_NE: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(hidden_NE.dtype, torch.float32)
    return (
        torch.zeros((), dtype=wide, device=hidden_NE.device),
        torch.zeros((), dtype=torch.int64, device=hidden_NE.device),
    )


def _widen(logits: Tensor) -> Tensor:
    """At least fp32; float64 stays, for tests of exactness."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
