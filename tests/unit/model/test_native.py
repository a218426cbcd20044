"""Products and updates in C are those of torch, and no row's depend on its mates."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_base import TINY
from tunesmith.model import native
from tunesmith.model.attention import AttentionRule
from tunesmith.model.decoder import Decoder
from tunesmith.model.fresh import init_weights
from tunesmith.model.frozen import FrozenDecoder, freeze
from tunesmith.model.lora import Adapter, AdapterBatch, LoraSpec
from tunesmith.model.native import NativeRows, Panels, Reading, adaptable, readable
from tunesmith.model.passes import turn
from tunesmith.model.shapes import linear_shapes

LINEARS = linear_shapes(TINY)
NARROW = {name: each.bfloat16() for name, each in init_weights(TINY, 0).items()}
QKV = tuple(f"model.layers.0.self_attn.{part}_proj" for part in "qkv")


@pytest.fixture(scope="module")
def compiled() -> ctypes.CDLL:
    found = native.library()
    if found is None:
        pytest.skip("there is no C compiler here")
    return found


@pytest.fixture
def anew() -> Iterator[None]:
    """As in a process that has compiled nothing yet."""
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def numbers(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator)


@given(
    st.integers(1, 40),
    st.integers(1, 80),
    st.integers(1, 100),
    st.booleans(),
    st.sampled_from((1, 2)),
)
@settings(deadline=None, max_examples=60)
def test_products_are_right_and_a_row_keeps_its_bits(
    compiled: ctypes.CDLL, rows: int, inputs: int, outputs: int, biased: bool, threads: int
) -> None:
    weight = numbers(outputs, inputs).bfloat16()
    bias = numbers(outputs) if biased else None
    panels, x = Panels(compiled, weight), numbers(rows, inputs)
    torch.set_num_threads(threads)
    try:
        y = panels.multiply(x, bias)
        alone = torch.cat([panels.multiply(row[None], bias) for row in x])
    finally:
        torch.set_num_threads(1)
    expected = x.double() @ weight.double().T + (0 if bias is None else bias)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(y, alone)
    assert torch.equal(panels.read(), weight)


def test_products_take_rows_of_any_shape_and_order(compiled: ctypes.CDLL) -> None:
    panels, x = Panels(compiled, numbers(33, 20).bfloat16()), numbers(20, 3, 2)
    y = panels.multiply(x.permute(2, 1, 0), None)
    assert y.shape == (2, 3, 33)
    assert torch.equal(y[1, 2], panels.multiply(x[:, 2, 1][None].contiguous(), None)[0])


def adapter(seed: int, rank: int, *, without: str = "none") -> Adapter:
    linears = {name: shape for name, shape in LINEARS.items() if without not in name}
    made = Adapter.create(linears, LoraSpec(rank, 2.0 * rank + seed), seed)
    for matrix in made.b.values():
        matrix.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return made.to(torch.float32)


ADAPTERS = [
    *(adapter(seed, rank) for seed, rank in enumerate((1, 4, 8, 16, 23, 40))),
    adapter(9, 8, without="k_proj"),
]


@torch.inference_mode()
@given(st.lists(st.integers(0, 7), min_size=1, max_size=13), st.sampled_from((1, 2)))
@settings(deadline=None, max_examples=40)
def test_each_row_gets_its_own_update(
    compiled: ctypes.CDLL, which: list[int], threads: int
) -> None:
    model = freeze(Decoder(TINY, NARROW), in_fp32=True)
    assert isinstance(model, FrozenDecoder)
    adapters = [None if number == 7 else ADAPTERS[number] for number in which]
    x = numbers(len(which), TINY.hidden_size)
    torch.set_num_threads(threads)
    try:
        got = NativeRows(compiled, adapters).adapt(QKV, x, model._products)
        for row, each in enumerate(adapters):
            alone = NativeRows(compiled, [each]).adapt(QKV, x[row : row + 1], model._products)
            for left, right in zip(got, alone, strict=True):
                assert torch.equal(left[row], right[0])
    finally:
        torch.set_num_threads(1)
    expected = AdapterBatch(adapters).adapt(QKV, x, model._products)
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_adapted_so() -> None:
    dora = Adapter.create(LINEARS, LoraSpec(4, 8.0, dora=True), 1, init_weights(TINY, 0))
    assert adaptable(ADAPTERS) and not adaptable([ADAPTERS[0], dora])
    huge = Adapter(LoraSpec(native.MAX_RANK + 1, 1.0), {}, {})
    assert not adaptable([huge])


@pytest.mark.parametrize("compiler", ["/no/such/compiler", "false", "true", "'"])
@pytest.mark.usefixtures("anew")
def test_without_a_compiler_torch_computes(
    compiler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert native.library() is None
    assert "install a C compiler" in caplog.text
    made = freeze(Decoder(TINY, NARROW), in_fp32=True)
    assert isinstance(made, FrozenDecoder)
    assert (made.products, made.dtype) == ("plain", torch.float32)
    wide = Decoder(TINY, {name: each.float() for name, each in NARROW.items()})
    ids = torch.tensor([[1, 9, 4, 30]])
    with torch.inference_mode():
        found, expected = (each.logits(each.hidden(ids)) for each in (made, wide))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=5),
    st.sampled_from(((1, 1), (2, 1), (3, 2), (7, 1), (5, 2))),
    st.sampled_from((16, 32, 64, 80, 128)),
    st.sampled_from((None, 1, 20)),
    st.sampled_from((1, 2)),
)
@settings(deadline=None, max_examples=60)
def test_a_position_reads_what_it_sees_and_the_same_bits_in_any_company(
    compiled: ctypes.CDLL,
    places: list[int],
    heads: tuple[int, int],
    size: int,
    window: int | None,
    threads: int,
) -> None:
    group, num_kv = heads
    num, num_heads, rule = len(places), group * num_kv, AttentionRule(window)
    joint = numbers(num, num_heads + 2 * num_kv, size)
    q, k, v = torch.split(joint, [num_heads, num_kv, num_kv], 1)
    keys, values = numbers(num * num_kv, 96, size), numbers(num * num_kv, 96, size) + 1
    torch.set_num_threads(threads)
    try:
        rows = list(range(num))
        got = Reading(compiled, rows, places)(q, k, v, keys, values, rule)
        for row, place in enumerate(places):
            alone = Reading(compiled, [row], [place])
            one = alone(*(each[row : row + 1] for each in (q, k, v)), keys, values, rule)
            assert torch.equal(got[row], one[0])
    finally:
        torch.set_num_threads(1)
    for row, place in enumerate(places):
        first = 0 if window is None else max(0, place + 1 - window)
        for head in range(num_heads):
            stored = row * num_kv + head // group
            assert torch.equal(keys[stored, place], k[row, head // group])
            assert torch.equal(values[stored, place], v[row, head // group])
            seen_keys = keys[stored, first : place + 1].double()
            weights = torch.softmax(seen_keys @ q[row, head].double() * rule.factor(size), 0)
            expected = weights @ values[stored, first : place + 1].double()
            torch.testing.assert_close(got[row, head].double(), expected, atol=3e-6, rtol=3e-6)


@torch.inference_mode()
def test_a_text_in_pieces_reads_what_it_reads_whole(compiled: ctypes.CDLL) -> None:
    q, k, v = numbers(70, 6, 32), numbers(70, 2, 32), numbers(70, 2, 32) * 3
    whole = torch.zeros(2, 2, 128, 32), torch.zeros(2, 2, 128, 32)
    expected = Reading(compiled, [1] * 70, range(70))(
        q, k, v, *(each.flatten(0, 1) for each in whole), AttentionRule()
    )
    pieces = torch.zeros(4, 128, 32), torch.zeros(4, 128, 32)
    for first, stop in ((0, 1), (1, 33), (33, 34), (34, 70)):
        part = Reading(compiled, [1] * (stop - first), range(first, stop))
        got = part(q[first:stop], k[first:stop], v[first:stop], *pieces, AttentionRule())
        assert torch.equal(got, expected[first:stop])


@torch.inference_mode()
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_scores_of_any_size_are_read(compiled: ctypes.CDLL, scale: float) -> None:
    q, keys = numbers(1, 1, 64) * scale, numbers(1, 96, 64)
    k, values = keys[:, 40][None].clone(), numbers(1, 96, 64) + 2
    v = values[:, 40][None].clone()
    got = Reading(compiled, [0], [40])(q, k, v, keys, values, AttentionRule())
    weights = torch.softmax(keys[0, :41].double() @ q[0, 0].double() / 8, 0)
    expected = weights @ values[0, :41].double()
    torch.testing.assert_close(got[0, 0].double(), expected, atol=3e-6, rtol=3e-6)


@torch.inference_mode()
def test_what_is_no_number_stays_none(compiled: ctypes.CDLL) -> None:
    ones, values = torch.ones(1, 1, 32), torch.ones(1, 64, 32)
    for place in range(3):
        keys = torch.ones(1, 64, 32)
        keys[0, place] = torch.nan
        k = keys[:, 2][None].clone()
        got = Reading(compiled, [0], [2])(ones, k, ones, keys, values, AttentionRule())
        assert bool(got.isnan().all()), place


def test_what_cannot_be_read_so(compiled: ctypes.CDLL) -> None:
    assert readable(compiled, replace(TINY, head_dim=64))
    assert not readable(compiled, replace(TINY, head_dim=63))
    assert not readable(compiled, replace(TINY, attention_softcap=50.0))


@torch.inference_mode()
@given(st.integers(1, 20), st.integers(1, 70), st.sampled_from((1, 2)))
@settings(deadline=None, max_examples=40)
def test_what_works_on_a_row_is_what_torch_does(
    compiled: ctypes.CDLL, rows: int, size: int, threads: int
) -> None:
    x, weight, wide = numbers(rows, size), numbers(size), numbers(rows, 2 * size) * 30
    cos, sin = numbers(rows, 1, 2 * size), numbers(rows, 1, 2 * size)
    joint = numbers(rows, 5, 2 * size)
    turned = joint.clone()
    torch.set_num_threads(threads)
    try:
        normed = native.norm(compiled, x, weight, 1e-5)
        inner = native.gated(compiled, wide)
        native.turn_heads(compiled, turned, 3, cos, sin)
        assert torch.equal(native.norm(compiled, x[-1:], weight, 1e-5), normed[-1:])
        assert torch.equal(native.gated(compiled, wide[-1:]), inner[-1:])
    finally:
        torch.set_num_threads(1)
    expected = torch.nn.functional.rms_norm(x.double(), (size,), weight.double(), 1e-5)
    torch.testing.assert_close(normed.double(), expected, atol=1e-5, rtol=1e-5)
    gate, up = wide.double().chunk(2, -1)
    expected = torch.nn.functional.silu(gate) * up
    torch.testing.assert_close(inner.double(), expected, atol=1e-5, rtol=1e-5)
    expected = turn(joint[:, :3], cos, sin)
    torch.testing.assert_close(turned[:, :3], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(turned[:, 3:], joint[:, 3:])


@torch.inference_mode()
def test_a_gate_of_no_number_or_without_end(compiled: ctypes.CDLL) -> None:
    inf, nan = float("inf"), float("nan")
    gates, ups = torch.tensor([[nan, -inf, -500.0, 500.0]]), torch.ones(1, 4)
    got = native.gated(compiled, torch.cat((gates, ups), -1))[0].tolist()
    assert got[0] != got[0]
    assert abs(got[2]) < 1e-30 and got[3] == 500.0
