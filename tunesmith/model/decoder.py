"""The decoder: one transformer for the trainer and the engine, so that what is trained is served.

It covers the families that share the Llama block: Llama, Mistral, SmolLM, Qwen2/2.5 (bias on
q, k, v) and Qwen3 (a norm on each query and key head). A family is a handful of switches in
`DecoderConfig`; `families.py` reads them from a Hugging Face config. Weights keep their Hugging
Face names, so that a checkpoint is the same file everywhere.

Left out on purpose: dropout in the base, training of sliding windows (the context is capped at
the window instead), quantised weights.

Shape suffixes: B sequences, T new positions, S positions attended to, E hidden, H query heads,
K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.families import DecoderConfig

ATTENTION_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_LINEARS = ("gate_proj", "up_proj", "down_proj")
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


class KeyValueCache(Protocol):
    """Keeps keys and values of earlier positions, one pair a layer."""

    def extend(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new positions; returns keys and values of all S positions (B, K, S, D)."""
        ...


class LowRankUpdate(Protocol):
    """What an adapter adds to a linear layer's output."""

    def delta(self, name: str, x_BTE: Tensor) -> Tensor | None:
        """The update for the linear called `name` ("model.layers.0.mlp.up_proj"), or None."""
        ...


class Decoder:
    """A causal language model over `weights`, a mapping of Hugging Face names to tensors."""

    slow = False

    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor]) -> None:
        self.config = config
        self.weights = weights
        self._inv_freq = inverse_frequencies(config).to(weights[EMBEDDING].device)

    @property
    def device(self) -> torch.device:
        return self.weights[EMBEDDING].device

    @property
    def dtype(self) -> torch.dtype:
        return self.weights[EMBEDDING].dtype

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def max_positions(self) -> int:
        """Longest sequence, prompt and answer together."""
        return self.config.max_positions

    @property
    def num_bytes(self) -> int:
        """Memory of the weights, mapped pages included."""
        return sum(weight.nbytes for weight in self.weights.values())

    @property
    def head(self) -> Tensor:
        """(V, E): one row for each token, which scores it."""
        return self.weights[EMBEDDING if self.config.tie_embeddings else HEAD]

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """What LoRA adapts: every linear of the blocks, in order, as (outputs, inputs)."""
        shapes = weight_shapes(self.config)
        return {
            name: (shapes[f"{name}.weight"][0], shapes[f"{name}.weight"][1])
            for name in linear_names(self.config)
        }

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
        cache: KeyValueCache | None = None,
        lora: LowRankUpdate | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, E), normalised, before the head.

        Without a mask every position attends to itself and what came before it, so rows may be
        padded on the right. With a cache, `mask_BTS` (True = attend) says which of the S stored
        positions each new one sees.
        """
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
        x = F.embedding(ids_BT, self.weights[EMBEDDING])
        rope = self._rotation(positions_BT, x.dtype)
        for layer in range(self.config.num_layers):
            name = f"model.layers.{layer}"
            normed = self._norm(f"{name}.input_layernorm.weight", x)
            x = x + self._attention(layer, normed, rope, mask_BTS, cache, lora)
            normed = self._norm(f"{name}.post_attention_layernorm.weight", x)
            x = x + self._mlp(f"{name}.mlp", normed, lora)
        return self._norm("model.norm.weight", x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for any stack of hidden states (..., E) -> (..., V)."""
        return F.linear(hidden, self.head)

    def _attention(
        self,
        layer: int,
        x_BTE: Tensor,
        rope: tuple[Tensor, Tensor],
        mask_BTS: Tensor | None,
        cache: KeyValueCache | None,
        lora: LowRankUpdate | None,
    ) -> Tensor:
        c, name = self.config, f"model.layers.{layer}.self_attn"
        q = split_heads(self._linear(f"{name}.q_proj", x_BTE, lora), c.num_heads)
        k = split_heads(self._linear(f"{name}.k_proj", x_BTE, lora), c.num_kv_heads)
        v = split_heads(self._linear(f"{name}.v_proj", x_BTE, lora), c.num_kv_heads)
        if c.qk_norm:
            q = self._norm(f"{name}.q_norm.weight", q)
            k = self._norm(f"{name}.k_norm.weight", k)
        q, k = rotate(q, *rope).transpose(1, 2), rotate(k, *rope).transpose(1, 2)
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        out = attend(q, k, v, mask_BTS)
        return self._linear(f"{name}.o_proj", out.transpose(1, 2).flatten(2), lora)

    def _mlp(self, name: str, x_BTE: Tensor, lora: LowRankUpdate | None) -> Tensor:
        gate = self._linear(f"{name}.gate_proj", x_BTE, lora)
        up = self._linear(f"{name}.up_proj", x_BTE, lora)
        return self._linear(f"{name}.down_proj", F.silu(gate) * up, lora)

    def _linear(self, name: str, x: Tensor, lora: LowRankUpdate | None) -> Tensor:
        y = F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))
        update = lora.delta(name, x) if lora is not None else None
        return y if update is None else y + update

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return rms_norm(x, self.weights[name], self.config.norm_eps)

    def _rotation(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        angle_BTD = positions_BT[..., None].float() * self._inv_freq
        angle_BTD = torch.cat((angle_BTD, angle_BTD), dim=-1)
        return angle_BTD.cos()[:, :, None].to(dtype), angle_BTD.sin()[:, :, None].to(dtype)


def split_heads(x_BTE: Tensor, num_heads: int) -> Tensor:
    """(B, T, heads * D) -> (B, T, heads, D)."""
    return x_BTE.view(*x_BTE.shape[:-1], num_heads, -1)


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_BTS: Tensor | None) -> Tensor:
    """Grouped attention (B, H, T, D); causal where there is no mask."""
    B, H, T, D = q_BHTD.shape
    K = k_BKSD.shape[1]
    mask = None if mask_BTS is None else mask_BTS[:, None]
    if T == 1:
        # One new position: the query heads of a group stand in as positions of their key head.
        # Against spreading keys and values over the heads, 1.8x faster in fp32, 5x in bf16.
        q_BKGD = q_BHTD.reshape(B, K, H // K, D)
        return F.scaled_dot_product_attention(q_BKGD, k_BKSD, v_BKSD, attn_mask=mask).view(
            B, H, 1, D
        )
    assert mask is not None or k_BKSD.shape[2] == T, "a cache needs a mask"
    if q_BHTD.requires_grad and q_BHTD.dtype == torch.bfloat16 and q_BHTD.device.type == "cpu":
        # torch's backward pass there is up to five times slower in bf16 than in fp32 with casts.
        wide = attend(q_BHTD.float(), k_BKSD.float(), v_BKSD.float(), mask_BTS)
        return wide.to(q_BHTD.dtype)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSD, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019), computed in fp32 and cast back."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def rotate(x_BTHD: Tensor, cos_BT1D: Tensor, sin_BT1D: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face."""
    first, second = x_BTHD.chunk(2, dim=-1)
    return x_BTHD * cos_BT1D + torch.cat((-second, first), dim=-1) * sin_BT1D


def inverse_frequencies(config: DecoderConfig) -> Tensor:
    """One rotation frequency per pair of head dimensions (D/2), after the config's scaling."""
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    inv_freq = 1.0 / (config.rope_theta**steps)
    scaling = config.rope_scaling
    if scaling is None:
        return inv_freq
    if isinstance(scaling, float | int):
        return inv_freq / scaling
    # Llama 3.1: long waves are slowed by `factor`, short ones kept, those between are blended.
    wavelength = 2 * math.pi / inv_freq
    span = scaling.high_freq_factor - scaling.low_freq_factor
    blend = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / span
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * inv_freq / scaling.factor + blend * inv_freq


def linear_names(config: DecoderConfig) -> list[str]:
    """Every linear layer of the blocks, in order: what LoRA adapts."""
    return [
        f"model.layers.{layer}.{part}"
        for layer in range(config.num_layers)
        for part in (
            *(f"self_attn.{linear}" for linear in ATTENTION_LINEARS),
            *(f"mlp.{linear}" for linear in MLP_LINEARS),
        )
    ]


def weight_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor the decoder reads, by Hugging Face name."""
    c = config
    hidden, inner = c.hidden_size, c.intermediate_size
    query, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (c.vocab_size, hidden)}
    for layer in range(c.num_layers):
        name = f"model.layers.{layer}"
        shapes[f"{name}.input_layernorm.weight"] = (hidden,)
        for part, rows in (("q_proj", query), ("k_proj", kv), ("v_proj", kv)):
            shapes[f"{name}.self_attn.{part}.weight"] = (rows, hidden)
            if c.qkv_bias:
                shapes[f"{name}.self_attn.{part}.bias"] = (rows,)
        shapes[f"{name}.self_attn.o_proj.weight"] = (hidden, query)
        if c.qk_norm:
            shapes[f"{name}.self_attn.q_norm.weight"] = (c.head_dim,)
            shapes[f"{name}.self_attn.k_norm.weight"] = (c.head_dim,)
        shapes[f"{name}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{name}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{name}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{name}.mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    if not c.tie_embeddings:
        shapes[HEAD] = (c.vocab_size, hidden)
    return shapes


def init_weights(config: DecoderConfig, seed: int) -> dict[str, Tensor]:
    """Fresh fp32 weights: normal 0.02, output projections shrunk by depth (GPT-2), norms one."""
    generator = torch.Generator().manual_seed(seed)
    shrink = 1 / math.sqrt(2 * config.num_layers)
    weights: dict[str, Tensor] = {}
    for name, shape in weight_shapes(config).items():
        if name.endswith("norm.weight"):
            weights[name] = torch.ones(shape)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(shape)
        else:
            std = 0.02 * (shrink if "o_proj" in name or "down_proj" in name else 1.0)
            weights[name] = torch.randn(shape, generator=generator) * std
    return weights
