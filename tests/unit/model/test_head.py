"""The loss at a frozen head, whatever the blocks: what the textbook says in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tunesmith.model import head
from tunesmith.model.head import losses

NUM, HIDDEN, VOCAB = 23, 8, 50


@pytest.mark.parametrize("block", [1, 7, VOCAB - 1, VOCAB, 1000])
def test_blocks_give_loss_and_gradient_of_all_scores(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "BLOCK_ELEMENTS", block * NUM)
    generator = torch.Generator().manual_seed(block)
    weight = 3 * torch.randn(VOCAB, HIDDEN, generator=generator, dtype=torch.float64)
    hidden = torch.randn(NUM, HIDDEN, generator=generator, dtype=torch.float64)
    # Targets at both ends of the vocabulary, and some that are the most likely.
    targets = torch.randint(0, VOCAB, (NUM,), generator=generator)
    targets[:2] = torch.tensor([0, VOCAB - 1])
    targets[2:9] = (hidden @ weight.T).argmax(-1)[2:9]
    leaf = hidden.clone().requires_grad_()
    expected = F.cross_entropy(leaf @ weight.T, targets, reduction="none")
    expected.sum().backward()
    gradient = torch.full_like(hidden, torch.nan)
    nll, is_right = losses(weight, hidden, targets, gradient)
    assert leaf.grad is not None
    assert (nll - expected).abs().max() <= 1e-12
    assert (gradient - leaf.grad).abs().max() <= 1e-12
    assert torch.equal(is_right, (hidden @ weight.T).argmax(-1) == targets)
    alone, _ = losses(weight, hidden, targets)
    assert torch.equal(alone, nll)


def test_scores_far_apart_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "BLOCK_ELEMENTS", 2)
    hidden, weight = torch.tensor([[200.0], [-300.0]]), torch.tensor([[1.0], [-1.0]])
    gradient = torch.empty_like(hidden)
    nll, is_right = losses(weight, hidden, torch.tensor([1, 1]), gradient)
    assert nll.tolist() == [400.0, 0.0]
    assert is_right.tolist() == [False, True]
    assert gradient.tolist() == [[2.0], [0.0]]
