"""Loss at a frozen head and its gradient, the vocabulary in blocks: no score is kept.

The softmax adds up while the blocks pass by (Milakov and Gimelshein 2018), and so does the mean of
the head's rows under it, which is all that the gradient is made of. So all positions go through a
block at once: read anew for every few dozen of them, a head of 150,000 tokens takes half as long
again as it does here.

Shape suffixes: N positions, E hidden, V vocabulary, B of it in a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.model.fixed import BLOCK, Factor, FixedRows, FixedWeight, add_back_

# Scores alive at once: 8 MiB of fp32, which a processor's caches hold from one product to the next.
BLOCK_ELEMENTS = 1 << 21


@torch.no_grad()
def losses(
    head_VE: Tensor,
    hidden_NE: Tensor,
    targets_N: Tensor,
    gradient_NE: Tensor | None = None,
    fixed: FixedWeight | None = None,
) -> tuple[Tensor, Tensor]:
    """-log softmax(hidden @ head^T) at the target of each position, and whether it is the most
    likely there; the gradient with respect to the hidden states into `gradient_NE`. `fixed`: the
    head in fixed point, where it is to be multiplied so."""
    num, size = len(hidden_NE), max(1, BLOCK_ELEMENTS // len(hidden_NE))
    if fixed is not None:
        size, rows = max(1, size // BLOCK) * BLOCK, FixedRows(hidden_NE)
    highest_N1 = hidden_NE.new_full((num, 1), -torch.inf)
    total_N1, target_N1 = torch.zeros_like(highest_N1), torch.zeros_like(highest_N1)
    if gradient_NE is not None:
        gradient_NE.zero_()
    scores = hidden_NE.new_empty(num * min(size, len(head_VE)))
    for start in range(0, len(head_VE), size):
        stop = min(start + size, len(head_VE))
        block_BE: Factor = head_VE[start:stop] if fixed is None else fixed.part(start, stop)
        scores_NB = scores[: num * (stop - start)].view(num, -1)
        if isinstance(block_BE, FixedWeight):
            block_BE.multiply(rows, scores_NB)
        else:
            torch.mm(hidden_NE, block_BE.T, out=scores_NB)
        ahead_N1 = targets_N[:, None] - start
        places_N1 = ahead_N1.clamp(0, stop - start - 1)
        is_here_N1 = ahead_N1 == places_N1
        found_N1 = scores_NB.gather(1, places_N1)
        target_N1 = torch.where(is_here_N1, found_N1, target_N1)
        before_N1, highest_N1 = highest_N1, highest_N1.maximum(scores_NB.amax(1, keepdim=True))
        # What was added up so far was relative to the highest score so far.
        shrunk_N1 = before_N1.sub_(highest_N1).exp_()
        scores_NB.sub_(highest_N1).exp_()
        total_N1.mul_(shrunk_N1).add_(scores_NB.sum(1, keepdim=True))
        if gradient_NE is None:
            continue
        # The target's own comes at the end: beside it, what a sure guess leaves to the others
        # would be rounded away.
        others_N1 = scores_NB.gather(1, places_N1).masked_fill_(is_here_N1, 0)
        scores_NB.scatter_(1, places_N1, others_N1)
        add_back_(gradient_NE.mul_(shrunk_N1), scores_NB, block_BE)
    if gradient_NE is not None:
        off_N1 = target_N1.sub(highest_N1).exp_().div_(total_N1).sub_(1)
        targets_NE = head_VE[targets_N].to(gradient_NE.dtype)
        gradient_NE.div_(total_N1).addcmul_(targets_NE, off_N1)
    nll_N1 = total_N1.log_().add_(highest_N1).sub_(target_N1)
    return nll_N1[:, 0], (target_N1 == highest_N1)[:, 0]


def softmax_(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, rightness and softmax(z) - one at the target, which takes the place of the logits."""
    places_N1 = targets_N[:, None]
    highest_N = logits_NV.amax(-1)
    target_N = logits_NV.gather(1, places_N1)[:, 0]
    total = torch.softmax(logits_NV, -1, out=logits_NV)
    # From the largest probability, which cannot round to zero as the target's can.
    log_total_N = highest_N - total.amax(-1).log()
    total.scatter_add_(1, places_N1, torch.full_like(target_N, -1.0)[:, None])
    return log_total_N - target_N, target_N == highest_N, total


def widen(logits: Tensor) -> Tensor:
    """At least fp32; float64 stays, for tests of exactness."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
