"""Stacked adapters compute what each would alone."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_base import TINY
from tunesmith.model.decoder import PlainLinears
from tunesmith.model.lora import Adapter, AdapterBatch, LoraSpec
from tunesmith.model.shapes import init_weights, linear_shapes
from tunesmith.model.stack import MAX_RANKS, MAX_ROWS, AdapterStack, stackable

LINEARS = linear_shapes(TINY)
WEIGHTS = init_weights(TINY, 0)
QKV = tuple(f"model.layers.0.self_attn.{part}_proj" for part in "qkv")


def adapter(seed: int, rank: int, *, without: str = "none") -> Adapter:
    linears = {name: shape for name, shape in LINEARS.items() if without not in name}
    result = Adapter.create(linears, LoraSpec(rank, 2.0 * rank + seed), seed)
    for matrix in result.b.values():
        matrix.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return result


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_get_their_own_adapter(dtype: torch.dtype) -> None:
    one, two, three = adapter(1, 4), adapter(2, 8), adapter(3, 2, without="k_proj")
    one, two, three = (each.to(dtype) for each in (one, two, three))
    stack = AdapterStack([one, two, three])
    products = PlainLinears({name: tensor.to(dtype) for name, tensor in WEIGHTS.items()})
    for rows in ([one, None, two, three, two], [two], [None, three, one]):
        x = torch.randn(len(rows), TINY.hidden_size, generator=torch.Generator().manual_seed(0))
        x = x.to(dtype)
        got = stack.rows(rows).adapt(QKV, x, products)
        expected = AdapterBatch(rows).adapt(QKV, x, products)
        for left, right in zip(got, expected, strict=True):
            assert left.dtype == dtype
            assert torch.allclose(left, right, atol=1e-5 if dtype == torch.float32 else 0.1)
        for row, each in enumerate(rows):
            plain = [output[row] for output in products(QKV, x)]
            changed = [not torch.equal(a[row], b) for a, b in zip(got, plain, strict=True)]
            assert changed == [each is not None, each not in (None, three), each is not None]


def test_a_stack_suits_those_it_is_made_of_and_not_far_fewer() -> None:
    made_of = [adapter(seed, 4) for seed in range(5)]
    stack = AdapterStack(made_of)
    assert stack.suits(made_of) and stack.suits(made_of[:3])
    assert not stack.suits(made_of[:2]) and not stack.suits([*made_of, adapter(9, 4)])


def test_stacking_is_for_few_rows_and_short_sums_of_plain_adapters() -> None:
    one, two = adapter(1, 4), adapter(2, 4)
    assert stackable([one, two], MAX_ROWS) and stackable([one], 1)
    assert not stackable([one, two], MAX_ROWS + 1)
    assert not stackable([one, adapter(3, MAX_RANKS)], 2)
    dora = Adapter.create(LINEARS, LoraSpec(4, 8.0, dora=True), 1, WEIGHTS)
    assert not stackable([one, dora], 2)
