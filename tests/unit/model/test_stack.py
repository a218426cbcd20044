"""Stacked adapters compute what each would alone."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tiny_base import TINY
from tunesmith.model.decoder import PlainLinears
from tunesmith.model.fresh import init_weights
from tunesmith.model.lora import Adapter, AdapterBatch, LoraSpec
from tunesmith.model.shapes import linear_shapes
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


MANY = [adapter(seed, 2 + 3 * (seed % 3)) for seed in range(7)]


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_get_their_own_adapter(dtype: torch.dtype) -> None:
    one, two, three = adapter(1, 4), adapter(2, 8), adapter(3, 2, without="k_proj")
    one, two, three = (each.to(dtype) for each in (one, two, three))
    stack = AdapterStack()
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


class Rows:
    """What a stack computes for rows with these adapters, which is right."""

    def __init__(self) -> None:
        self.stack = AdapterStack()

    def __call__(self, *rows: Adapter | None) -> Tensor:
        """A^T as it lies there then."""
        x = torch.randn(len(rows), TINY.hidden_size, generator=torch.Generator().manual_seed(0))
        products = PlainLinears(WEIGHTS)
        with torch.inference_mode():
            got = self.stack.rows(rows).adapt(QKV, x, products)
            expected = AdapterBatch(rows).adapt(QKV, x, products)
        for left, right in zip(got, expected, strict=True):
            assert torch.allclose(left, right, atol=1e-5)
        return self.stack.matrices(QKV, TINY.hidden_size, got)[0]


def test_who_joins_takes_a_place_that_nobody_needs() -> None:
    rows = Rows()
    one, two, three, four = (adapter(seed, 4) for seed in range(4))
    first = rows(one, two, three)
    assert rows(three, one) is first, "two of three are enough to keep it as it is"
    assert rows(four, None, three, one) is first, "there was a place"
    assert rows(two, three, one) is first, "and there is again"
    wide = rows(one, two, three, four)
    assert wide is not first and wide.shape[1] == 4 * 4 * len(QKV)
    small, smaller = adapter(5, 2), adapter(6, 2)
    assert rows(small, one, smaller, three, four) is wide, "two in the place of one"
    assert rows(two, one, three, four) is wide, "and one in the place of two"


def test_a_stack_far_too_wide_is_made_anew() -> None:
    rows = Rows()
    one, *others = (adapter(seed, 4) for seed in range(5))
    assert rows(one, *others).shape[1] == 5 * 4 * len(QKV)
    assert rows(one, others[0], others[1]).shape[1] == 5 * 4 * len(QKV)
    assert rows(one, others[0]).shape[1] == 2 * 4 * len(QKV)
    assert rows.stack.num_bytes > 0
    rows.stack.clear()
    assert rows.stack.num_bytes == 0
    rows(one)


def test_a_stack_keeps_no_adapter_alive() -> None:
    rows = Rows()
    one, two = adapter(1, 4), adapter(2, 4)
    before = rows(one, two)
    gone = weakref.ref(two)
    del two
    assert gone() is None
    assert rows(adapter(3, 4), one) is before, "in the place of the one that is gone"


@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=5), max_size=6))
@settings(max_examples=25, deadline=None)
def test_rows_are_right_whatever_was_stacked_before(passes: list[list[int]]) -> None:
    rows = Rows()
    for numbers in passes:
        rows(*(None if number == 7 else MANY[number] for number in numbers))


def test_stacking_is_for_few_rows_and_short_sums_of_plain_adapters() -> None:
    one, two = adapter(1, 4), adapter(2, 4)
    assert stackable([one, two], MAX_ROWS) and stackable([one], 1)
    assert not stackable([one, two], MAX_ROWS + 1)
    assert not stackable([one, adapter(3, MAX_RANKS)], 2)
    dora = Adapter.create(LINEARS, LoraSpec(4, 8.0, dora=True), 1, WEIGHTS)
    assert not stackable([one, dora], 2)
