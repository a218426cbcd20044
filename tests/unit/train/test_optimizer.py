"""AdamW: equal to torch's own, with its clipping; the learning rate's course."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tunesmith.train.optimizer import AdamW, learning_rate

SHAPES = [(4, 7), (3,), (16, 16), (1, 1)]


def parameters(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def set_gradients(targets: list[Tensor], step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for target in targets:
        assert target.grad is not None
        target.grad.copy_(torch.randn(target.shape, generator=generator) * (1 + step % 3))


def test_it_is_torchs_adamw_with_torchs_clipping() -> None:
    ours, theirs = parameters(0), [p.requires_grad_() for p in parameters(0)]
    optimizer = AdamW(ours)
    reference = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.0, fused=True)
    for step in range(12):
        rate = 0.1 / (step + 1)
        optimizer.zero_gradient()
        set_gradients(ours, step)
        for parameter in theirs:
            parameter.grad = torch.zeros_like(parameter)
        set_gradients(theirs, step)
        norm = optimizer.clip()
        expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        torch.testing.assert_close(norm, expected)
        optimizer.update(rate)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_parameters_keep_their_values_and_collect_gradients_in_one_buffer() -> None:
    before, values = parameters(1), parameters(1)
    optimizer = AdamW(values)
    for one, other in zip(values, before, strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad
        assert one.data_ptr() % 64 == 0 or one.data_ptr() % 16 == 0
    (values[0].sum() * 2).backward()  # type: ignore[no-untyped-call]
    (values[0].sum() * 3).backward()  # type: ignore[no-untyped-call]
    assert float(optimizer.gradient.sum()) == 5.0 * values[0].numel()
    optimizer.zero_gradient()
    assert values[0].grad is not None
    assert not values[0].grad.any()


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    whole = parameters(2)
    optimizer = AdamW(whole)
    for step in range(6):
        set_gradients(whole, step)
        optimizer.update(0.01)
        if step == 2:
            halfway = [p.detach().clone() for p in whole]
            state = {name: value.clone() for name, value in optimizer.state().items()}
    resumed = AdamW(halfway)
    resumed.load_state(state)
    for step in range(3, 6):
        set_gradients(halfway, step)
        resumed.update(0.01)
    for one, other in zip(whole, halfway, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("total_steps", [1, 5, 10, 99, 100, 1000])
def test_the_rate_rises_to_its_peak_and_falls_but_never_to_zero(total_steps: int) -> None:
    rates = [learning_rate(1.0, step, total_steps) for step in range(1, total_steps + 1)]
    warmup = min(10, total_steps // 10)
    assert rates.index(max(rates)) == warmup
    assert rates[warmup] == 1.0
    assert min(rates) > 0
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
