"""What training computes in C is what torch computes, gradients and odd sizes included."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tunesmith.model import learning, passes
from tunesmith.model.attention import Attention, AttentionRule, causal
from tunesmith.model.packed import PackedAttention

SIZES = st.integers(1, 70)
THREADS = st.sampled_from((1, 2, 3))


@pytest.fixture(scope="module")
def compiled() -> ctypes.CDLL:
    found = learning.library()
    if found is None:
        pytest.skip("there is no C compiler here")
    # A job that this process ran before may have wanted none.
    learning.use(True)
    return found


@pytest.fixture
def anew() -> Iterator[None]:
    """As in a process that has compiled nothing yet."""
    learning.library.cache_clear()
    yield
    learning.library.cache_clear()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator)


def close(one: Tensor, other: Tensor, tolerance: float = 2e-6) -> bool:
    return bool((one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max())))


@given(SIZES, SIZES, THREADS)
@settings(deadline=None, max_examples=40)
def test_the_gate_is_torchs(compiled: ctypes.CDLL, rows: int, size: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # Halves of one tensor, as fused linears leave them.
        gate, up = (3 * numbers(rows, 2 * size)).chunk(2, 1)
        gate[0, 0], up[-1, -1] = 200.0, -200.0
        toward = numbers(rows, size, seed=1)
        leaves = gate.double().requires_grad_(), up.double().requires_grad_()
        x = F.silu(leaves[0]) * leaves[1]
        of_gate, of_up = torch.autograd.grad(x, leaves, toward.double())
        assert close(learning.gate(compiled, gate, up), x.detach())
        again, found_gate, found_up = learning.gate_backward(compiled, gate, up, toward)
        assert torch.equal(again, learning.gate(compiled, gate, up))
        assert close(found_gate, of_gate)
        assert close(found_up, of_up)
    finally:
        torch.set_num_threads(before)


@given(SIZES, SIZES)
@settings(deadline=None, max_examples=40)
def test_norm_is_torchs(compiled: ctypes.CDLL, rows: int, size: int) -> None:
    x, weight, toward = numbers(2, rows, size), numbers(size), numbers(2, rows, size, seed=1)
    y, factors = learning.norm(compiled, x, weight, 1e-6)
    leaf = x.double().requires_grad_()
    expected = F.rms_norm(leaf, (size,), weight.double(), 1e-6)
    (of_x,) = torch.autograd.grad(expected, leaf, toward.double())
    assert close(y, expected.detach())
    assert close(learning.scaled(compiled, x, factors, weight), y, 1e-7)
    # With one number, all of its gradient but a rounding error is taken away again.
    found = learning.norm_backward(compiled, x, weight, factors, toward)
    largest = float((factors * weight * toward).abs().max())
    assert (found - of_x).abs().max() <= 4e-6 * max(1.0, largest)


@given(SIZES, st.integers(1, 5), st.integers(1, 40), st.booleans())
@settings(deadline=None, max_examples=40)
def test_heads_turn_as_with_torch(
    compiled: ctypes.CDLL, length: int, heads: int, half: int, is_strided: bool
) -> None:
    x = numbers(2, length, heads + 1, 2 * half)
    x = x[:, :, 1:] if is_strided else x[:, :, 1:].contiguous()
    cos, sin = numbers(1, length, 1, 2 * half), numbers(1, length, 1, 2 * half, seed=1)
    for sign in (1, -1):
        swapped = x.roll(half, -1)
        expected = x * cos + sign * swapped * sin
        assert close(learning.turned(compiled, x, cos, sin, sign), expected)


def attended(attention: Attention, heads: list[Tensor], toward: Tensor) -> list[Tensor]:
    """What is read, and the gradients of queries, keys and values."""
    leaves = [x.detach().requires_grad_() for x in heads]
    out = attention(0, *leaves, AttentionRule())  # type: ignore[call-arg]
    return [out.detach(), *torch.autograd.grad(out, leaves, toward)]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.sampled_from(((4, 4), (6, 2), (3, 1))),
    st.sampled_from((1, 3)),
    THREADS,
)
@settings(deadline=None, max_examples=40)
def test_sequences_of_a_row_read_what_they_read_alone(
    compiled: ctypes.CDLL,
    lengths: list[int],
    num_heads: tuple[int, int],
    size: int,
    threads: int,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        T, D = sum(lengths), size * compiled.lanes()
        H, K = num_heads
        # Queries in the way of what else a linear gives.
        q = numbers(1, T, H + 1, D)[:, :, :H]
        heads = [q, numbers(1, T, K, D), numbers(1, T, K, D, seed=1)]
        toward = numbers(1, T, H, D, seed=2)
        found = attended(PackedAttention(lengths, fails), heads, toward)
        again = attended(PackedAttention(lengths, fails), heads, toward)
        assert all(map(torch.equal, found, again))
        parts = zip(*(torch.split(x, lengths, 1) for x in (*heads, toward)), strict=True)
        alone = [attended(causal, list(part[:3]), part[3]) for part in parts]
        for one, others in zip(found, zip(*alone, strict=True), strict=True):
            assert close(one, torch.cat(others, 1), 1e-5)
    finally:
        torch.set_num_threads(before)


def test_a_beginning_in_common_is_computed_once(compiled: ctypes.CDLL) -> None:
    # Three sequences; the second begins with 20 positions of the first, all of the third are there.
    D, lengths = compiled.lanes(), [50, 45, 20]
    places = torch.cat((torch.arange(50), torch.arange(20), torch.arange(50, 75), torch.arange(20)))
    firsts = torch.cat((torch.arange(50), torch.arange(70, 95)))
    heads = [numbers(1, 75, 4, D), numbers(1, 75, 2, D), numbers(1, 75, 2, D, seed=1)]
    toward = numbers(1, 75, 4, D, seed=2)

    def whole(layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        parts = zip(*(torch.split(x[:, places], lengths, 1) for x in (q, k, v)), strict=True)
        return torch.cat([causal(layer, *part, rule) for part in parts], 1)[:, firsts]

    found = attended(PackedAttention(lengths, fails, places, firsts), heads, toward)
    for one, other in zip(found, attended(whole, heads, toward), strict=True):
        assert close(one, other, 1e-5)


@pytest.mark.parametrize(
    ("rule", "size"),
    [(AttentionRule(window=4), 16), (AttentionRule(softcap=5.0), 16), (AttentionRule(), 3)],
)
def test_what_it_cannot_do_is_left_to_torch(rule: AttentionRule, size: int) -> None:
    x = numbers(1, 5, 1, size)
    assert torch.equal(PackedAttention([5], causal)(0, x, x, x, rule), causal(0, x, x, x, rule))


def test_a_process_may_want_none(compiled: ctypes.CDLL) -> None:
    x = numbers(2, 3)
    assert learning.found_for(x) is compiled
    assert learning.found_for(x, x.T) is None
    assert learning.found_for(x.double()) is None
    learning.use(False)
    assert learning.found_for(x) is None
    learning.use(True)


@pytest.mark.usefixtures("anew")
def test_without_a_compiler_torch_computes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "false")
    gate = numbers(3, 5).requires_grad_()
    weight, a, b = numbers(4, 5), numbers(2, 5, seed=1), numbers(4, 2, seed=2)
    out = passes.gated_product(gate, gate, "silu", weight, None, a, b, 2.0)
    assert close(out.detach(), (F.silu(gate) * gate @ (weight + 2.0 * b @ a).T).detach(), 1e-5)
    assert "learning.c cannot be compiled" in caplog.text
    assert "install a C compiler" in caplog.text


def fails(*given: object) -> Tensor:
    raise AssertionError("this has to be computed in C")
