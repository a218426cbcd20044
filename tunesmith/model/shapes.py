"""Shapes: the tensors of a decoder by their Hugging Face names, and fresh ones to start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tunesmith.model.families import DecoderConfig

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def linear_shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Every linear of the blocks, in order, as (outputs, inputs): what LoRA adapts."""
    c = config
    query, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    rows = {
        "q_proj": query,
        "k_proj": kv,
        "v_proj": kv,
        "qkv_proj": query + 2 * kv,
        "gate_proj": c.intermediate_size,
        "up_proj": c.intermediate_size,
        "gate_up_proj": 2 * c.intermediate_size,
    }
    block = {
        **{f"self_attn.{part}": (rows[part], c.hidden_size) for part in c.attention_inputs},
        "self_attn.o_proj": (c.hidden_size, query),
        **{f"mlp.{part}": (rows[part], c.hidden_size) for part in c.mlp_inputs},
        "mlp.down_proj": (c.hidden_size, c.intermediate_size),
    }
    return {
        f"model.layers.{layer}.{part}": shape
        for layer in range(c.num_layers)
        for part, shape in block.items()
    }


def weight_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor the decoder reads."""
    c = config
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (c.vocab_size, c.hidden_size)}
    for name, (outputs, inputs) in linear_shapes(c).items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        if name.rpartition(".")[2] in c.biased:
            shapes[f"{name}.bias"] = (outputs,)
    for layer in range(c.num_layers):
        block = f"model.layers.{layer}"
        for norm in c.block_norms:
            shapes[f"{block}.{norm}.weight"] = (c.hidden_size,)
        if c.qk_norm:
            shapes[f"{block}.self_attn.q_norm.weight"] = (c.head_dim,)
            shapes[f"{block}.self_attn.k_norm.weight"] = (c.head_dim,)
    shapes["model.norm.weight"] = (c.hidden_size,)
    if not c.tie_embeddings:
        shapes[HEAD] = (c.vocab_size, c.hidden_size)
    return shapes


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
