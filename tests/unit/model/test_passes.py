"""Hand-written backward passes: autograd's values and gradients, in float64 to the last bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.passes import activated, adapted_products, gated_product, rms_norm, turn

EPS = 1e-5


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


def assert_same(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor], limit: float
) -> None:
    one, other = ours(*inputs), theirs(*inputs)
    assert (one - other).abs().max() <= limit
    toward = torch.randn(one.shape, generator=torch.Generator().manual_seed(1)).to(one.dtype)
    wanted = [each for each in inputs if each.requires_grad]
    pairs = zip(
        torch.autograd.grad((one * toward).sum(), wanted),
        torch.autograd.grad((other * toward).sum(), wanted),
        strict=True,
    )
    for found, expected in pairs:
        assert found.dtype == expected.dtype
        assert (found - expected).abs().max() <= limit


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)
    return weight * wide.to(x.dtype)


def plain_turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("trained", [True, False])
def test_the_norm(trained: bool, dtype: torch.dtype, limit: float) -> None:
    x, weight = leaves((2, 5, 8), (8,), dtype=dtype)
    weight.requires_grad_(trained)
    assert_same(lambda x, w: rms_norm(x, w, EPS), plain_norm, [x, weight], limit)


def test_the_rotation() -> None:
    (x,) = leaves((2, 5, 3, 8))
    angle = torch.arange(5, dtype=torch.float64)[None, :, None, None] * torch.rand(4).double()
    cos, sin = torch.cat((angle.cos(), angle.cos()), -1), torch.cat((angle.sin(), angle.sin()), -1)
    signed = torch.cat((-angle.sin(), angle.sin()), -1)
    assert_same(lambda x: turn(x, cos, signed), lambda x: plain_turn(x, cos, sin), [x], 1e-12)
    with torch.no_grad():
        assert torch.allclose(turn(x, cos, signed), plain_turn(x, cos, sin))


@pytest.mark.parametrize("first_layer", [True, False])
@pytest.mark.parametrize("sizes", [(6,), (6, 4, 4)])
def test_products_with_their_updates(sizes: tuple[int, ...], first_layer: bool) -> None:
    """The input of the first layer needs no gradient: embeddings are frozen."""
    num, rank, scale = len(sizes), 2, 1.5
    shapes = [(2, 5, 8), *((n, 8) for n in sizes), *((n,) for n in sizes)]
    x, *frozen = leaves(*shapes)
    parameters = leaves(*((rank, 8) for _ in sizes), *((n, rank) for n in sizes))
    x.requires_grad_(not first_layer)
    weights, biases = frozen[:num], [None, *frozen[num + 1 :]]
    for each in frozen:
        each.requires_grad_(False)

    def ours(x: Tensor, *ab: Tensor) -> Tensor:
        return torch.cat(adapted_products(x, weights, biases, ab[:num], ab[num:], scale), -1)

    def theirs(x: Tensor, *ab: Tensor) -> Tensor:
        updates = [
            F.linear(x, w, bias) + scale * F.linear(F.linear(x, a), b)
            for w, bias, a, b in zip(weights, biases, ab[:num], ab[num:], strict=True)
        ]
        return torch.cat(updates, -1)

    assert_same(ours, theirs, [x, *parameters], 1e-12)


def test_a_normed_input_is_formed_again_for_the_backward_pass() -> None:
    x, gain, weight, a, b = leaves((2, 5, 8), (8,), (6, 8), (2, 8), (6, 2))
    gain, weight = gain.detach(), weight.detach()
    seen = []

    def ours(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda kept: seen.append((kept.data_ptr(), kept.shape)) or kept, lambda kept: kept
        ):
            return adapted_products(rms_norm(x, gain, 1e-6), [weight], [None], [a], [b], 1.5)[0]

    def theirs(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        normed = F.rms_norm(x, (8,), gain, 1e-6)
        return F.linear(normed, weight) + 1.5 * F.linear(F.linear(normed, a), b)

    assert_same(ours, theirs, [x, a, b], 1e-12)
    # Twice the norm's own input, which is there once.
    assert [at for at, shape in seen if shape == (2, 5, 8)] == [x.data_ptr()] * 2
    assert not [at for at, shape in seen if shape == (10, 8)]


@pytest.mark.parametrize("kind", ["silu", "gelu"])
def test_a_product_of_what_a_gate_lets_through(kind: str) -> None:
    gate, up, weight, bias, a, b = leaves((2, 5, 8), (2, 5, 8), (6, 8), (6,), (2, 8), (6, 2))
    weight, bias = weight.detach(), bias.detach()
    seen = []

    def ours(gate: Tensor, up: Tensor, a: Tensor, b: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda kept: seen.append(tuple(kept.shape)) or kept, lambda kept: kept
        ):
            return gated_product(gate, up, kind, weight, bias, a, b, 1.5)

    def theirs(gate: Tensor, up: Tensor, a: Tensor, b: Tensor) -> Tensor:
        x = activated(gate, kind) * up
        return F.linear(x, weight, bias) + 1.5 * F.linear(F.linear(x, a), b)

    assert_same(ours, theirs, [gate, up, a, b], 1e-12)
    # Of the positions gate and up alone are kept, and neither their product nor a part of it.
    assert [shape for shape in seen if shape == (10, 8)] == [(10, 8), (10, 8)]


def test_parameters_in_fp32_get_gradients_in_fp32_from_bf16_products() -> None:
    x, weight = leaves((5, 8), (6, 8), dtype=torch.bfloat16)
    a, b = leaves((2, 8), (6, 2), dtype=torch.float32)
    (out,) = adapted_products(x, [weight.detach()], [None], [a], [b], 1.0)
    assert out.dtype == torch.bfloat16
    of_a, of_b, of_x = torch.autograd.grad(out.float().sum(), (a, b, x))
    assert (of_a.dtype, of_b.dtype, of_x.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    exact = F.linear(x.float(), weight.float()) + F.linear(F.linear(x.float(), a), b)
    (expected,) = torch.autograd.grad(exact.sum(), a)
    assert (of_a - expected).abs().max() <= 0.05 * expected.abs().max()
