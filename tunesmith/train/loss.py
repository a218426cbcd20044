"""Loss, token accuracy and the loss's gradient in one pass, without ever holding full logits.

Only supervised positions reach the head, a chunk at a time: each chunk's logits give loss,
accuracy and the gradient with respect to the hidden states (and to the head, where it is trained),
and are dropped. A frozen head on a CPU is read in blocks of the vocabulary instead (model/head.py).

What a sequence's loss weighs in the step's may depend on that very loss (preferences): a position's
gradient is linear in its weight, so it is formed for weight w and multiplied afterwards. A trained
head adds up over positions, so there the weights must be known before.

Shape suffixes: N supervised positions, S sequences, E hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.model.fixed import FixedWeight
from tunesmith.model.head import losses, softmax_, widen
from tunesmith.train.batches import MicroBatch

# Logits alive at once, elements: 32 MiB of fp32 on a CPU; a GPU wants larger products.
CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}


@dataclass(frozen=True)
class Head:
    logits: Callable[[Tensor], Tensor]
    """Hidden states (N, E) to scores (N, V)."""
    vocab_size: int
    weight: Tensor | None = None
    """(V, E): what the scores are formed with, where it is trained."""
    gradient: Tensor | None = None
    """(V, E), at least fp32: what its gradient is added to."""
    plain: Tensor | None = None
    """(V, E), where the scores are the product with it and nothing else: no graph is needed."""
    fixed: FixedWeight | None = None
    """The same in fixed point, where it is to be multiplied so."""

    def chunks(self, hidden_NE: Tensor) -> list[slice]:
        """Of about equal size, so that no product is left with a few positions."""
        num, most = hidden_NE.shape[0], self.most_at_once(hidden_NE.device)
        if self.in_blocks(hidden_NE) is not None:
            return [slice(0, num)]
        size = max(1, -(-num // max(1, -(-num // most))))
        return [slice(start, start + size) for start in range(0, num, size)]

    def in_blocks(self, hidden_NE: Tensor) -> Tensor | None:
        """`plain`, where the vocabulary is read in blocks by all positions at once."""
        is_wide_on_cpu = hidden_NE.device.type == "cpu" and hidden_NE.dtype.itemsize >= 4
        return self.plain if is_wide_on_cpu and self.gradient is None else None

    def most_at_once(self, device: torch.device) -> int:
        return max(1, CHUNK_ELEMENTS[device.type] // self.vocab_size)


@dataclass(frozen=True)
class Scores:
    """Sums over the supervised positions of each sequence, left on the device: adding them up
    waits for nothing. In float64, because preferences live on small differences of large sums."""

    loss_S: Tensor
    """sum(w * nll)"""
    correct_S: Tensor
    """How many positions where the most likely token is the right one."""


def chunk_bytes(head: Head, dtype: torch.dtype, device: torch.device, num: int) -> int:
    """What the logits of `num` positions take at most, in `dtype` and wide."""
    size = min(num, head.most_at_once(device))
    narrow = 0 if dtype == torch.float32 else 2 * dtype.itemsize
    return size * head.vocab_size * (4 + narrow)


def scores(head: Head, hidden_NE: Tensor, batch: MicroBatch) -> Scores:
    """Loss and accuracy alone."""
    found = []
    with torch.no_grad():
        for rows in head.chunks(hidden_NE):
            plain = head.in_blocks(hidden_NE)
            if plain is not None:
                nll_N, is_right_N = losses(plain, hidden_NE, batch.targets_N, None, head.fixed)
            else:
                logits_NV = widen(head.logits(hidden_NE[rows]))
                nll_N, is_right_N, _ = softmax_(logits_NV, batch.targets_N[rows])
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
    factors_N = batch.weights_N if ahead_N is None else batch.weights_N * ahead_N
    found = []
    gradient_NE = torch.empty_like(hidden_NE)
    for rows in head.chunks(hidden_NE):
        nll_N, is_right_N = _learn(
            head,
            hidden_NE.detach()[rows],
            batch.targets_N[rows],
            factors_N[rows],
            gradient_NE[rows],
        )
        found.append((batch.weights_N[rows] * nll_N, is_right_N))
    sums = _by_sequence(found, batch)
    if ahead_N is None:
        spread_N = _spread(coefficients(sums.loss_S), batch)
        gradient_NE *= spread_N[:, None].to(gradient_NE.dtype)
    # Of this sum the gradient is `gradient_NE` exactly. Handing it to autograd as an argument would
    # import sympy first (0.3 s).
    torch.autograd.backward((hidden_NE * gradient_NE).sum())
    return sums


@torch.no_grad()
def _learn(
    head: Head, hidden_NE: Tensor, targets_N: Tensor, factors_N: Tensor, gradient_NE: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss and rightness of each position; the gradient of sum(factors * nll) into `gradient_NE`
    and the head's.

    For logits z that is factors * (softmax(z) - one at the target), formed where z stood; the
    factors come in where it is narrow.
    """
    plain = head.in_blocks(hidden_NE)
    if plain is not None:
        nll_N, is_right_N = losses(plain, hidden_NE, targets_N, gradient_NE, head.fixed)
        gradient_NE *= factors_N[:, None]
        return nll_N, is_right_N
    leaf_NE = hidden_NE.requires_grad_(head.plain is None)
    with torch.set_grad_enabled(head.plain is None):
        narrow_NV = head.logits(leaf_NE)
    logits_NV = widen(narrow_NV.detach())
    if head.plain is None and logits_NV.dtype == narrow_NV.dtype:
        logits_NV = logits_NV.clone()
    nll_N, is_right_N, toward_NV = softmax_(logits_NV, targets_N)
    toward_NV = toward_NV.to(narrow_NV.dtype)
    factors_N1 = factors_N[:, None].to(narrow_NV.dtype)
    if head.plain is not None:
        torch.mm(toward_NV, head.plain, out=gradient_NE)
        gradient_NE *= factors_N1
        if head.gradient is not None:
            _add_product_(head.gradient, toward_NV.T, hidden_NE * factors_N1)
        return nll_N, is_right_N
    toward_NV *= factors_N1
    # A head that is more than one product: autograd goes through what it does to the logits.
    inputs = [leaf_NE] if head.weight is None else [leaf_NE, head.weight]
    with torch.enable_grad():
        weighed = (narrow_NV * toward_NV).sum()
    of_hidden_NE, *of_head = torch.autograd.grad(weighed, inputs)
    gradient_NE.copy_(of_hidden_NE)
    if head.gradient is not None:
        head.gradient.add_(of_head[0])
    return nll_N, is_right_N


def _add_product_(sum_VE: Tensor, left_VN: Tensor, right_NE: Tensor) -> None:
    """sum += left @ right, whatever the types."""
    if left_VN.dtype == sum_VE.dtype:
        sum_VE.addmm_(left_VN, right_NE)
    else:
        sum_VE.add_(left_VN @ right_NE)


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
