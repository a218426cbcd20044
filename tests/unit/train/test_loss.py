"""Loss and gradient: in float64 equal to the textbook computation, whatever the chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.train import loss
from tunesmith.train.batches import MicroBatch
from tunesmith.train.loss import Head, backward, scores

NUM, HIDDEN, VOCAB = 23, 8, 50


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(NUM, HIDDEN, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, VOCAB, (NUM,), generator=generator)
    weights = torch.rand(NUM, generator=generator, dtype=torch.float64)
    return hidden, weight, targets, weights


def batch_of(targets: Tensor, weights: Tensor, counts: tuple[int, ...] = (NUM,)) -> MicroBatch:
    """Supervised positions alone, in sequences of so many."""
    none = torch.empty(0, dtype=torch.int64)
    return MicroBatch(
        ids_1T=none,
        positions_1T=none,
        lengths=counts,
        sequences=tuple(range(len(counts))),
        counts_S=torch.tensor(counts),
        index_N=none,
        targets_N=targets,
        weights_N=weights,
    )


def over(total: float) -> Callable[[Tensor], Tensor]:
    """Every sequence counts the same."""
    return lambda loss_S: torch.full_like(loss_S, 1 / total)


def naive(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and its gradient from full logits."""
    hidden = hidden.clone().requires_grad_()
    nll = -F.log_softmax(hidden @ head.T, -1)[torch.arange(len(targets)), targets]
    mean = (weights * nll).sum() / weights.sum()
    (gradient,) = torch.autograd.grad(mean, hidden)
    return mean.detach(), gradient


@pytest.mark.parametrize("chunk_rows", [1, 7, NUM, 1000])
def test_chunks_give_the_loss_and_gradient_of_full_logits(
    chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss.CHUNK_ELEMENTS, "cpu", chunk_rows * VOCAB)
    hidden, weight, targets, weights = problem()
    expected, gradient = naive(hidden, weight, targets, weights)
    head = Head(lambda rows: rows @ weight.T, VOCAB)
    leaf = hidden.clone().requires_grad_()
    total = float(weights.sum())
    batch = batch_of(targets, weights, (5, 0, NUM - 5))
    found = backward(head, leaf * 1, batch, over(total))
    assert leaf.grad is not None
    assert abs(found.loss_S.sum() / total - expected) <= 1e-12
    assert (leaf.grad - gradient).abs().max() <= 1e-12
    is_right = (hidden @ weight.T).argmax(-1) == targets
    assert found.correct_S.tolist() == [int(is_right[:5].sum()), 0, int(is_right[5:].sum())]
    first, _ = naive(hidden[:5], weight, targets[:5], weights[:5])
    assert abs(found.loss_S[0] - first * weights[:5].sum()) <= 1e-12
    alone = scores(head, hidden, batch)
    assert (alone.loss_S - found.loss_S).abs().max() <= 1e-12
    assert torch.equal(alone.correct_S, found.correct_S)


def test_what_a_sequence_counts_may_depend_on_its_loss() -> None:
    hidden, weight, targets, weights = problem(3)
    head = Head(lambda rows: rows @ weight.T, VOCAB)
    leaf = hidden.clone().requires_grad_()
    batch = batch_of(targets, weights, (9, NUM - 9))
    backward(head, leaf * 1, batch, lambda loss_S: 2 * loss_S)
    # The derivative of the sum of squares.
    other = hidden.clone().requires_grad_()
    nll = -F.log_softmax(other @ weight.T, -1)[torch.arange(NUM), targets] * weights
    (nll[:9].sum() ** 2 + nll[9:].sum() ** 2).backward()
    assert leaf.grad is not None and other.grad is not None
    assert (leaf.grad - other.grad).abs().max() <= 1e-11


def test_accumulated_parts_equal_the_whole() -> None:
    hidden, weight, targets, weights = problem(1)
    _, gradient = naive(hidden, weight, targets, weights)
    head = Head(lambda rows: rows @ weight.T, VOCAB)
    leaf = hidden.clone().requires_grad_()
    total = float(weights.sum())
    # Parts of very different sizes: a mean of means would be far off.
    for part in (slice(0, 1), slice(1, 20), slice(20, NUM)):
        size = len(targets[part])
        batch = batch_of(targets[part], weights[part], (size,))
        backward(head, leaf[part], batch, over(total))
    assert leaf.grad is not None
    assert (leaf.grad - gradient).abs().max() <= 1e-12


def test_logits_never_exist_for_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_ELEMENTS, "cpu", 4 * VOCAB)
    hidden, weight, targets, weights = problem()
    sizes: list[int] = []

    def logits(rows: Tensor) -> Tensor:
        sizes.append(rows.shape[0])
        return rows @ weight.T

    backward(Head(logits, VOCAB), hidden.requires_grad_(), batch_of(targets, weights), over(1.0))
    assert max(sizes) == 4
    assert sum(sizes) == NUM


def test_a_weight_of_zero_takes_a_token_out() -> None:
    hidden, weight, targets, weights = problem(2)
    weights[3] = 0.0
    head = Head(lambda rows: rows @ weight.T, VOCAB)
    leaf = hidden.clone().requires_grad_()
    backward(head, leaf * 1, batch_of(targets, weights), over(float(weights.sum())))
    assert leaf.grad is not None
    assert not leaf.grad[3].any()
    assert leaf.grad[4].any()
