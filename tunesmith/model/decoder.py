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
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.families import DecoderConfig

ATTENTION_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_LINEARS = ("gate_proj", "up_proj", "down_proj")
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class AttentionRule:
    """How the scores of one layer are formed; the same for every position."""

    window: int | None = None
    """Positions that are seen, the position itself included; None: all before it."""
    scale: float | None = None
    """What a product of query and key is multiplied by; None: 1 / sqrt(head size)."""
    softcap: float | None = None
    """Scores stay within +-softcap: softcap * tanh(score / softcap). None: as they are."""


class Attention(Protocol):
    """Who sees whom in a pass, and where the keys and values of earlier positions are kept."""

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        """What the new positions of one layer read, (B, T, H, D)."""
        ...


class LowRankUpdate(Protocol):
    """What an adapter makes of the outputs of linear layers."""

    def adapt(
        self, names: tuple[str, ...], x_BTE: Tensor, outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The outputs with the update of each: `names` are the linears that x went through."""
        ...


class Linears(Protocol):
    """The products of the frozen linear layers, in the form that is fastest for the purpose."""

    def __call__(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        """The outputs of several linears ("model.layers.0.mlp.up_proj") for one input."""
        ...


class Decoder:
    """A causal language model over `weights`, a mapping of Hugging Face names to tensors."""

    slow = False

    def __init__(
        self,
        config: DecoderConfig,
        weights: Mapping[str, Tensor],
        linears: Linears | None = None,
    ) -> None:
        self.config = config
        self.weights = weights
        self._products = linears or self._plain_products
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
        attention: Attention | None = None,
        lora: LowRankUpdate | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, E), normalised, before the head.

        Without `attention` every position attends to itself and what came before it, so rows may
        be padded on the right.
        """
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
        x = F.embedding(ids_BT, self.weights[EMBEDDING])
        rope = self._rotation(positions_BT, x.dtype)
        for layer in range(self.config.num_layers):
            name = f"model.layers.{layer}"
            normed = self._norm(f"{name}.input_layernorm.weight", x)
            x = x + self._attention(layer, normed, rope, attention or causal, lora)
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
        attention: Attention,
        lora: LowRankUpdate | None,
    ) -> Tensor:
        c, name = self.config, f"model.layers.{layer}.self_attn"
        names = (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj")
        q, k, v = self._linear(names, x_BTE, lora)
        q, k = split_heads(q, c.num_heads), split_heads(k, c.num_kv_heads)
        if c.qk_norm:
            q = self._norm(f"{name}.q_norm.weight", q)
            k = self._norm(f"{name}.k_norm.weight", k)
        q, k, v = rotate(q, *rope), rotate(k, *rope), split_heads(v, c.num_kv_heads)
        out_BTHD = attention(layer, q, k, v, AttentionRule())
        (out,) = self._linear((f"{name}.o_proj",), out_BTHD.flatten(2), lora)
        return out

    def _mlp(self, name: str, x_BTE: Tensor, lora: LowRankUpdate | None) -> Tensor:
        gate, up = self._linear((f"{name}.gate_proj", f"{name}.up_proj"), x_BTE, lora)
        (down,) = self._linear((f"{name}.down_proj",), F.silu(gate) * up, lora)
        return down

    def _linear(
        self, names: tuple[str, ...], x_BTE: Tensor, lora: LowRankUpdate | None
    ) -> tuple[Tensor, ...]:
        outputs = self._products(names, x_BTE)
        return outputs if lora is None else lora.adapt(names, x_BTE, outputs)

    def _plain_products(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        w = self.weights
        return tuple(F.linear(x_BTE, w[f"{name}.weight"], w.get(f"{name}.bias")) for name in names)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return rms_norm(x, self.weights[name], self.config.norm_eps)

    def _rotation(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        angle_BTD = positions_BT[..., None].float() * self._inv_freq
        angle_BTD = torch.cat((angle_BTD, angle_BTD), dim=-1)
        return angle_BTD.cos()[:, :, None].to(dtype), angle_BTD.sin()[:, :, None].to(dtype)


def split_heads(x_BTE: Tensor, num_heads: int) -> Tensor:
    """(B, T, heads * D) -> (B, T, heads, D)."""
    return x_BTE.view(*x_BTE.shape[:-1], num_heads, -1)


def causal(
    layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
) -> Tensor:
    """The `Attention` of whole rows: each position sees itself and what came before it."""
    T = q_BTHD.shape[1]
    mask_BTS = None
    if rule.window is not None and rule.window < T:
        mask_BTS = seen(torch.arange(T, device=q_BTHD.device)[None], T, rule)
    return attend(q_BTHD, k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2), mask_BTS, rule)


def seen(positions_BT: Tensor, num_stored: int, rule: AttentionRule) -> Tensor:
    """(B, T, S): True where a new position sees a stored one."""
    distance_BTS = positions_BT[..., None] - torch.arange(num_stored, device=positions_BT.device)
    seen_BTS = distance_BTS >= 0
    return seen_BTS if rule.window is None else seen_BTS & (distance_BTS < rule.window)


def attend(
    q_BTHD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_BTS: Tensor | None, rule: AttentionRule
) -> Tensor:
    """Grouped attention (B, T, H, D) of what the mask shows; causal where there is no mask."""
    B, T, H, D = q_BTHD.shape
    K, S = k_BKSD.shape[1:3]
    assert mask_BTS is not None or S == T, "stored positions need a mask"
    if rule.softcap is not None:
        return _attend_capped(q_BTHD, k_BKSD, v_BKSD, mask_BTS, rule)
    mask = None if mask_BTS is None else mask_BTS[:, None]
    if T == 1:
        # One new position: the query heads of a group stand in as positions of their key head.
        # Against spreading keys and values over the heads, 1.8x faster in fp32, 5x in bf16.
        q_BKGD = q_BTHD.reshape(B, K, H // K, D)
        out_BKGD = F.scaled_dot_product_attention(
            q_BKGD, k_BKSD, v_BKSD, attn_mask=mask, scale=rule.scale
        )
        return out_BKGD.reshape(B, 1, H, D)
    if q_BTHD.requires_grad and q_BTHD.dtype == torch.bfloat16 and q_BTHD.device.type == "cpu":
        # torch's backward pass there is up to five times slower in bf16 than in fp32 with casts.
        wide = attend(q_BTHD.float(), k_BKSD.float(), v_BKSD.float(), mask_BTS, rule)
        return wide.to(q_BTHD.dtype)
    out_BHTD = F.scaled_dot_product_attention(
        q_BTHD.transpose(1, 2),
        k_BKSD,
        v_BKSD,
        attn_mask=mask,
        is_causal=mask is None,
        scale=rule.scale,
        enable_gqa=True,
    )
    return out_BHTD.transpose(1, 2)


def _attend_capped(
    q_BTHD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_BTS: Tensor | None, rule: AttentionRule
) -> Tensor:
    """`attend` where the scores are capped: torch has no fused form, so they are written out."""
    B, T, H, D = q_BTHD.shape
    K, S = k_BKSD.shape[1:3]
    assert rule.softcap is not None
    if mask_BTS is None:
        mask_BTS = seen(torch.arange(T, device=q_BTHD.device)[None], S, AttentionRule())
    # The heads of a group stand in as more positions, so that no key is copied for them.
    q_BKGTD = q_BTHD.reshape(B, T, K, H // K, D).permute(0, 2, 3, 1, 4)
    scale = D**-0.5 if rule.scale is None else rule.scale
    scores = (q_BKGTD.reshape(B, K, -1, D) @ k_BKSD.transpose(-1, -2)).float()
    scores = rule.softcap * torch.tanh(scores * (scale / rule.softcap))
    scores_BKGTS = scores.view(B, K, -1, T, S)
    scores_BKGTS = scores_BKGTS.masked_fill(~mask_BTS[:, None, None], -torch.inf)
    weights = scores_BKGTS.softmax(-1).to(v_BKSD.dtype)
    out_BKGTD = (weights.flatten(2, 3) @ v_BKSD).view(B, K, -1, T, D)
    return out_BKGTD.permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


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
