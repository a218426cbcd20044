"""Rotation: cosines and sines of positions by a `Rope` rule, and queries and keys turned by them.

Products and powers are in the order of transformers, because a frequency that differs in its last
bit turns far positions visibly otherwise.

Shape suffixes as in `decoder.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tunesmith.model.passes import turn
from tunesmith.model.rope_rules import LinearScaling, Llama3Scaling, LongScaling, Rope, YarnScaling

PART = 64

Turning = Callable[[Tensor, torch.dtype], tuple[Tensor, Tensor]]


class Rotation:
    """Cosines and sines for the positions of a pass."""

    def __init__(self, rope: Rope, head_dim: int, device: torch.device) -> None:
        dims = int(head_dim * rope.share)
        steps = torch.arange(0, dims, 2, dtype=torch.int64).float() / dims
        self._gain = 1.0
        self._long: tuple[int, Tensor] | None = None
        match rope.scaling:
            case LongScaling() as scaling:
                self._gain = scaling.attention_factor
                waves = rope.theta**steps
                inv_freq = 1.0 / (torch.tensor(scaling.short_factors) * waves)
                other = 1.0 / (torch.tensor(scaling.long_factors) * waves)
                self._long = (scaling.original_max_positions, other.to(device))
            case YarnScaling() as scaling:
                self._gain = scaling.attention_factor
                inv_freq = _yarn(rope.theta**steps, rope.theta, dims, scaling)
            case Llama3Scaling() as scaling:
                inv_freq = _llama3(1.0 / rope.theta**steps, scaling)
            case LinearScaling(factor):
                inv_freq = 1.0 / rope.theta**steps / factor
            case None:
                inv_freq = 1.0 / rope.theta**steps
        self._inv_freq = inv_freq.to(device)

    def __call__(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(B, T, 1, D) each; (N, 1, D) for positions (N,) that are a sequence each.

        The sines of the first half are negative, as they are used.
        """
        inv_freq = self._inv_freq
        if self._long is not None:
            original, other = self._long
            is_long_BT = _lengths(positions_BT) > original
            inv_freq = torch.where(is_long_BT[..., None], other, inv_freq)
        angle_BT1D = (positions_BT[..., None].float() * inv_freq)[..., None, :]
        cos, sin = angle_BT1D.cos() * self._gain, angle_BT1D.sin() * self._gain
        return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


class RotationTable:
    """The cosines and sines of a `Rotation`, looked up: few calls, and for a position always the
    same bits. Not for LongRoPE, where a position's depend on the length of its sequence."""

    def __init__(self, rotation: Turning) -> None:
        self._rotation = rotation
        self._table_S21D = self._part(0)

    def __call__(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        num_needed = int(positions_BT.max()) + 1
        while len(self._table_S21D) < num_needed:
            num = len(self._table_S21D)
            more = [self._part(start) for start in range(num, 2 * num, PART)]
            self._table_S21D = torch.cat((self._table_S21D, *more))
        cos, sin = self._table_S21D[positions_BT].to(dtype).unbind(-3)
        return cos, sin

    def _part(self, start: int) -> Tensor:
        # One after the other, because the last elements of an odd number have other bits.
        positions_S = torch.arange(start, start + PART)
        return torch.stack(self._rotation(positions_S, torch.float32), -3)


def rotate(x_BTHD: Tensor, cos_BT1D: Tensor, sin_BT1D: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face."""
    dims = cos_BT1D.shape[-1]
    if dims < x_BTHD.shape[-1]:
        turned = rotate(x_BTHD[..., :dims], cos_BT1D, sin_BT1D)
        return torch.cat((turned, x_BTHD[..., dims:]), dim=-1)
    return turn(x_BTHD, cos_BT1D, sin_BT1D)


def _lengths(positions_BT: Tensor) -> Tensor:
    """How long the sequence of each position is, as far as the pass shows it.

    A row may hold several sequences; positions that follow each other are of one.
    """
    if positions_BT.dim() == 1:
        return positions_BT + 1
    is_last_BT = torch.ones_like(positions_BT, dtype=torch.bool)
    is_last_BT[:, :-1] = positions_BT[:, 1:] != positions_BT[:, :-1] + 1
    T = positions_BT.shape[1]
    index_BT = torch.where(is_last_BT, torch.arange(T, device=positions_BT.device), T - 1)
    last_BT = index_BT.flip(1).cummin(1).values.flip(1)
    return positions_BT.gather(1, last_BT) + 1


def _llama3(inv_freq: Tensor, scaling: Llama3Scaling) -> Tensor:
    wavelength = 2 * math.pi / inv_freq
    span = scaling.high_freq_factor - scaling.low_freq_factor
    blend = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / span
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * inv_freq / scaling.factor + blend * inv_freq


def _yarn(waves: Tensor, theta: float, dims: int, scaling: YarnScaling) -> Tensor:
    def pair_turning(times: float) -> float:
        """The (fractional) pair that turns so often over the original context."""
        turns = math.log(scaling.original_max_positions / (times * 2 * math.pi))
        return dims * turns / (2 * math.log(theta))

    low, high = pair_turning(scaling.beta_fast), pair_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    high = high + 0.001 if low == high else high
    slowed = ((torch.arange(dims // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    kept = 1 - slowed
    return 1.0 / (scaling.factor * waves) * (1 - kept) + 1.0 / waves * kept
