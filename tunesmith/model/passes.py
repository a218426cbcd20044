"""Pieces of the decoder with a backward pass written by hand, for training.

Autograd's own would give the same gradients with two to three times the passes over memory, which
on a CPU is a tenth of a step. What is kept for the backward pass is the input, which the layers
share anyway, and never a product; of an input that a norm formed, what the norm keeps.

Shape suffixes: T positions (of all rows), E inputs, F outputs of a linear, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from tunesmith.model import learning
from tunesmith.model.fixed import Factor, FixedRows, FixedWeight, add_back_

# Of a normed tensor: what `_formed` forms it from once more.
FORMED_FROM = "formed_from"


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019), computed in fp32 and cast back."""
    if not torch.is_grad_enabled():
        return _normed(x, weight, eps)[0]
    out, factor = _Norm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    vars(out)[FORMED_FROM] = (x.detach(), factor, weight.detach())
    return torch.as_tensor(out)


def turn(x_BTHD: Tensor, cos_BT1D: Tensor, sin_BT1D: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face.

    The sines of the first half are negative.
    """
    if not torch.is_grad_enabled():
        # A copy more, but a third of the calls: for a few positions these are what costs.
        swapped_BTHD = x_BTHD.roll(x_BTHD.shape[-1] // 2, -1)
        return torch.addcmul(x_BTHD * cos_BT1D, swapped_BTHD, sin_BT1D)
    out: Tensor = _Turn.apply(x_BTHD, cos_BT1D, sin_BT1D)  # type: ignore[no-untyped-call]
    return out


def adapted_products(
    x: Tensor,
    weights: Sequence[Factor],
    biases: Sequence[Tensor | None],
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    scale: float,
) -> tuple[Tensor, ...]:
    """x W^T + bias + scale (x A^T) B^T for several frozen linears that share x (..., E).

    A (R, E) and B (F, R) are leaves in fp32; the products run in x's type.
    """
    x_TE = x.flatten(0, -2)
    source = vars(x).get(FORMED_FROM, ())
    outputs = _Adapted.apply(  # type: ignore[no-untyped-call]
        x_TE, scale, len(weights), *weights, *biases, *a, *b, *source
    )
    return tuple(out_TF.view(*x.shape[:-1], -1) for out_TF in outputs)


def gated_product(
    gate: Tensor,
    up: Tensor,
    kind: str,
    weight: Factor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scale: float,
) -> Tensor:
    """The same of one linear for x = activated(gate) * up, of which only gate and up are kept."""
    flat = gate.flatten(0, -2), up.flatten(0, -2)
    out: Tensor = _Gated.apply(*flat, kind, weight, bias, a, b, scale)  # type: ignore[no-untyped-call]
    return out.view(*gate.shape[:-1], -1)


def activated(gate: Tensor, kind: str) -> Tensor:
    """`kind` is silu, or gelu in its form with tanh."""
    return F.silu(gate) if kind == "silu" else F.gelu(gate, approximate="tanh")


def _normed(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normed x, and what each of its rows was multiplied by."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / x.shape[-1]
    factor = mean_square.add_(eps).rsqrt_()
    return _scaled(wide, factor, weight, x.dtype), factor


def _formed(x: Tensor, factor: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The normed x once more, of which this was kept."""
    found = learning.found_for(x, factor, weight)
    if found:
        return learning.scaled(found, x, factor, weight)
    return _scaled(x, factor, weight, dtype)


def _scaled(x: Tensor, factor: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return (x * factor).to(dtype).mul_(weight)


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        found = learning.found_for(x, weight)
        given = x, weight, eps
        normed, factor = learning.norm(found, *given) if found else _normed(*given)
        ctx.save_for_backward(x, weight, factor)
        ctx.mark_non_differentiable(factor)
        return normed, factor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, factor = ctx.saved_tensors
        found = None if ctx.needs_input_grad[1] else learning.found_for(x, weight, gradients[0])
        if found:
            return learning.norm_backward(found, x, weight, factor, gradients[0]), None, None
        wide, toward = x.to(factor.dtype), gradients[0].to(factor.dtype)
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (toward * wide * factor).flatten(0, -2).sum(0).to(weight.dtype)
        toward = toward * weight
        along = torch.linalg.vecdot(toward, wide)[..., None] * factor.pow(3) / x.shape[-1]
        return toward.mul_(factor).addcmul_(wide, along, value=-1).to(x.dtype), of_weight, None


class _Turn(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # The inverse of a rotation is the rotation by the opposite angle.
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    found = learning.found_for(x, cos, sin)
    if found:
        return learning.turned(found, x, cos, sin, sign)
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=sign)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return out


class _Adapted(Function):
    @staticmethod
    def forward(
        ctx: Any, x_TE: Tensor, scale: float, num: int, *tensors: Any
    ) -> tuple[Tensor, ...]:
        weights, biases, a, b = (tensors[i : i + num] for i in range(0, 4 * num, num))
        outputs, narrow_TR, b_FR = _products(x_TE, weights, biases, a, b, scale)
        kept = tensors[4 * num :] or (x_TE,)
        ctx.scale, ctx.fixed = scale, _fixed(weights)
        ctx.save_for_backward(narrow_TR, *a, *b_FR, *(() if ctx.fixed else weights), *kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        num = len(gradients)
        narrow_TR, *rest = ctx.saved_tensors
        a, b_FR, rest = rest[:num], rest[num : 2 * num], rest[2 * num :]
        weights, rest = (ctx.fixed, rest) if ctx.fixed else (rest[:num], rest[num:])
        x_TE, *norm = rest
        if norm:
            factor, gain = norm
            x_TE = _formed(x_TE, factor, gain, narrow_TR.dtype).flatten(0, -2)
        of_narrow_TR, of_b = _of_narrow(gradients, narrow_TR, b_FR)
        of_a = _of_a(of_narrow_TR, x_TE, ctx.scale, num)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _of_input(gradients, weights, of_narrow_TR, _joined(a, ctx.scale, x_TE.dtype))
        of_kept = [None] * (len(ctx.needs_input_grad) - 3 - 4 * num)
        return (of_x, None, None, *[None] * (2 * num), *of_a, *of_b, *of_kept)


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate_TE: Tensor, up_TE: Tensor, kind: str, *tensors: Any) -> Tensor:
        weight, bias, a, b, scale = tensors
        found = learning.found_for(gate_TE, up_TE) if kind == "silu" else None
        if found:
            x_TE = learning.gate(found, gate_TE, up_TE)
        else:
            x_TE = activated(gate_TE, kind).mul_(up_TE)
        (out,), narrow_TR, b_FR = _products(x_TE, [weight], [bias], [a], [b], scale)
        ctx.scale, ctx.kind, ctx.fixed = scale, kind, _fixed([weight])
        ctx.save_for_backward(gate_TE, up_TE, narrow_TR, a, *b_FR, *(() if ctx.fixed else [weight]))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate_TE, up_TE, narrow_TR, a, b_FR, *weights = ctx.saved_tensors
        of_narrow_TR, of_b = _of_narrow(gradients, narrow_TR, [b_FR])
        a_RE = _joined([a], ctx.scale, gate_TE.dtype)
        of_x_TE = _of_input(gradients, ctx.fixed or weights, of_narrow_TR, a_RE)
        x_TE, of_gate_TE, of_up_TE = _of_gate(gate_TE, up_TE, ctx.kind, of_x_TE)
        of_a = _of_a(of_narrow_TR, x_TE, ctx.scale, 1)
        return of_gate_TE, of_up_TE, None, None, None, *of_a, *of_b, None


def _fixed(weights: Sequence[Factor]) -> list[FixedWeight]:
    """All of them or none: what autograd need not know of."""
    return [weight for weight in weights if isinstance(weight, FixedWeight)]


def _products(
    x_TE: Tensor,
    weights: Sequence[Factor],
    biases: Sequence[Tensor | None],
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    scale: float,
) -> tuple[tuple[Tensor, ...], Tensor, list[Tensor]]:
    """The outputs, and what the backward pass needs: scale x A^T (T, all R) and each B."""
    b_FR = [each.to(x_TE.dtype) for each in b]
    narrow_TR = x_TE @ _joined(a, scale, x_TE.dtype).T
    parts = narrow_TR.chunk(len(weights), 1)
    rows = FixedRows(x_TE) if _fixed(weights) else x_TE
    outputs = tuple(
        _product(rows, weight, bias).addmm_(part, each.T)
        for weight, bias, part, each in zip(weights, biases, parts, b_FR, strict=True)
    )
    return outputs, narrow_TR, b_FR


def _product(x: Tensor | FixedRows, weight: Factor, bias: Tensor | None) -> Tensor:
    if isinstance(x, Tensor):
        assert isinstance(weight, Tensor)
        return F.linear(x, weight, bias)
    assert isinstance(weight, FixedWeight)
    return weight.product(x, bias)


def _joined(a: Sequence[Tensor], scale: float, dtype: torch.dtype) -> Tensor:
    """All A for one product, scaled where it is narrowest; small enough to be formed twice."""
    return torch.cat(list(a)).mul_(scale).to(dtype)


def _of_narrow(
    gradients: Sequence[Tensor], narrow_TR: Tensor, b_FR: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of x A^T, and in fp32 at least of each B."""
    num = len(gradients)
    of_narrow_TR = torch.empty_like(narrow_TR)
    of_b = []
    parts = zip(of_narrow_TR.chunk(num, 1), narrow_TR.chunk(num, 1), strict=True)
    for toward_TF, each, (of_part, part) in zip(gradients, b_FR, parts, strict=True):
        torch.mm(toward_TF, each, out=of_part)
        # Turned around afterwards: a third faster on a CPU than a product with few columns.
        of_b.append((part.T @ toward_TF).T.to(torch.promote_types(part.dtype, torch.float32)))
    return of_narrow_TR, of_b


def _of_a(of_narrow_TR: Tensor, x_TE: Tensor, scale: float, num: int) -> Sequence[Tensor]:
    """The gradients of so many A, in fp32 at least."""
    of_a_RE = of_narrow_TR.T @ x_TE
    wide = torch.promote_types(of_a_RE.dtype, torch.float32)
    return of_a_RE.to(wide).mul_(scale).chunk(num)


def _of_gate(
    gate_TE: Tensor, up_TE: Tensor, kind: str, of_x_TE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x = activated(gate) * up once more, and the gradients of gate and up; takes that of x."""
    found = learning.found_for(gate_TE, up_TE, of_x_TE) if kind == "silu" else None
    if found:
        return learning.gate_backward(found, gate_TE, up_TE, of_x_TE)
    active_TE = activated(gate_TE, kind)
    x_TE = active_TE * up_TE
    of_up_TE = active_TE.mul_(of_x_TE)
    of_x_TE.mul_(up_TE)
    if kind == "silu":
        return x_TE, torch.ops.aten.silu_backward(of_x_TE, gate_TE), of_up_TE
    of_gate_TE = torch.ops.aten.gelu_backward(of_x_TE, gate_TE, approximate="tanh")
    return x_TE, of_gate_TE, of_up_TE


def _of_input(
    gradients: Sequence[Tensor], weights: Sequence[Factor], of_narrow_TR: Tensor, a_RE: Tensor
) -> Tensor:
    of_x_TE = of_narrow_TR @ a_RE
    for toward_TF, weight in zip(gradients, weights, strict=True):
        add_back_(of_x_TE, toward_TF, weight)
    return of_x_TE
