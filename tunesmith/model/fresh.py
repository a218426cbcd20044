"""Fresh weights for a decoder of any shape, to begin pretraining with, or a measurement."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tunesmith.model.families import DecoderConfig
from tunesmith.model.shapes import weight_shapes


def init_weights(config: DecoderConfig, seed: int) -> dict[str, Tensor]:
    """Fresh fp32 weights: normal 0.02, output projections shrunk by depth (GPT-2), norms one."""
    generator = torch.Generator().manual_seed(seed)
    shrink = 1 / math.sqrt(2 * config.num_layers)
    weights: dict[str, Tensor] = {}
    for name, shape in weight_shapes(config).items():
        if name.endswith("norm.weight"):
            weights[name] = torch.full(shape, 0.0 if config.norms_from_one else 1.0)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(shape)
        else:
            std = 0.02 * (shrink if "o_proj" in name or "down_proj" in name else 1.0)
            weights[name] = torch.randn(shape, generator=generator) * std
    return weights
