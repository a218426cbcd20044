"""The decoder: one transformer for the trainer and the engine, so that what is trained is served.

It covers the families that share the Llama block: Llama, Mistral, SmolLM, Qwen 2 to 3, Phi-3,
Gemma 2 and 3. A family is a handful of switches in `DecoderConfig`; `families.py` reads them from
a Hugging Face config. Weights keep their Hugging Face names, so that a checkpoint is the same file
everywhere.

Left out on purpose: dropout in the base. Quantised weights are in `nf4.py`.

Shape suffixes: B sequences, T new positions, S positions attended to, E hidden, H query heads,
K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunesmith.model.families import DecoderConfig
from tunesmith.model.passes import activated, rms_norm
from tunesmith.model.rope_rules import LongScaling, Rope
from tunesmith.model.rotation import Rotation, rotate
from tunesmith.model.shapes import EMBEDDING, HEAD, linear_shapes

# Cosines and sines of the positions of a pass, for each rule that some layer has.
Turns = dict[Rope, tuple[Tensor, Tensor]]


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
    """What an adapter makes of linear layers."""

    def adapt(self, names: tuple[str, ...], x_BTE: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its update."""
        ...


@runtime_checkable
class GatedUpdate(Protocol):
    """One that learns with less memory where it is given what the input was made from."""

    def adapt_gated(
        self, name: str, gate_BTE: Tensor, up_BTE: Tensor, kind: str, products: Linears
    ) -> Tensor:
        """`adapt` for x = activated(gate, kind) * up."""
        ...


class Linears(Protocol):
    """The products of the frozen linear layers, in the form that is fastest for the purpose."""

    def __call__(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        """The outputs of several linears ("model.layers.0.mlp.up_proj") for one input."""
        ...


class PlainLinears:
    """The products as torch has them, over `weights` by Hugging Face names."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights

    def __call__(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        w = self.weights
        return tuple(F.linear(x_BTE, w[f"{name}.weight"], w.get(f"{name}.bias")) for name in names)


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
        self._products = linears or PlainLinears(weights)
        self._rotations = {
            kind.rope: Rotation(kind.rope, config.head_dim, self.device)
            for kind in config.kinds
            if kind.rope is not None
        }
        # Rounded as the embedding is, before the product.
        self._embedding_scale = float(torch.tensor(config.embedding_scale, dtype=self.dtype))

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
        return linear_shapes(self.config)

    @property
    def short_positions(self) -> int | None:
        """Longer sequences are computed otherwise from their first position on (LongRoPE), so
        that keys and values kept of a shorter one are of no use to them; None: no such length."""
        scalings = [rope.scaling for rope in self._rotations]
        lengths = [s.original_max_positions for s in scalings if isinstance(s, LongScaling)]
        return min(lengths, default=None)

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        attention: Attention | None = None,
        lora: LowRankUpdate | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """Final hidden states (B, T, E), normalised, before the head.

        Without `attention` every position attends to itself and what came before it, so rows may
        be padded on the right. With `recompute` a layer keeps only its input for the backward pass.
        """
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
        x = F.embedding(ids_BT, self.weights[EMBEDDING])
        if self.config.embedding_scale != 1.0:
            x = x * self._embedding_scale
        turns = {rope: turn(positions_BT, x.dtype) for rope, turn in self._rotations.items()}
        for layer in range(self.config.num_layers):
            arguments = (layer, x, turns, attention or causal, lora)
            if recompute:
                x = checkpoint(self._layer, *arguments, use_reentrant=False)
            else:
                x = self._layer(*arguments)
        return self._norm("model.norm.weight", x)

    def _layer(
        self,
        layer: int,
        x: Tensor,
        turns: Turns,
        attention: Attention,
        lora: LowRankUpdate | None,
    ) -> Tensor:
        name = f"model.layers.{layer}"
        before, after, *more = (f"{name}.{norm}.weight" for norm in self.config.block_norms)
        added = self._attention(layer, self._norm(before, x), turns, attention, lora)
        if more:
            # Gemma: what each part adds is normalised too.
            x = x + self._norm(after, added)
            added = self._mlp(f"{name}.mlp", self._norm(more[0], x), lora)
            return x + self._norm(more[1], added)
        x = x + added
        return x + self._mlp(f"{name}.mlp", self._norm(after, x), lora)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for any stack of hidden states (..., E) -> (..., V)."""
        name = EMBEDDING if self.config.tie_embeddings else HEAD
        (logits,) = self._products((name.removesuffix(".weight"),), hidden)
        cap = self.config.logit_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _attention(
        self,
        layer: int,
        x_BTE: Tensor,
        turns: Turns,
        attention: Attention,
        lora: LowRankUpdate | None,
    ) -> Tensor:
        c, kind, name = self.config, self.config.kind(layer), f"model.layers.{layer}.self_attn"
        outputs = self._linear(tuple(f"{name}.{part}" for part in c.attention_inputs), x_BTE, lora)
        if c.fused:
            kv_size = c.num_kv_heads * c.head_dim
            outputs = torch.split(outputs[0], [c.num_heads * c.head_dim, kv_size, kv_size], -1)
        q, k, v = (output.view(*output.shape[:-1], -1, c.head_dim) for output in outputs)
        if c.qk_norm:
            q = self._norm(f"{name}.q_norm.weight", q)
            k = self._norm(f"{name}.k_norm.weight", k)
        if kind.rope is not None:
            q, k = rotate(q, *turns[kind.rope]), rotate(k, *turns[kind.rope])
        rule = AttentionRule(kind.window, c.attention_scale, c.attention_softcap)
        out_BTHD = attention(layer, q, k, v, rule)
        (out,) = self._linear((f"{name}.o_proj",), out_BTHD.flatten(2), lora)
        return out

    def _mlp(self, name: str, x_BTE: Tensor, lora: LowRankUpdate | None) -> Tensor:
        c = self.config
        outputs = self._linear(tuple(f"{name}.{part}" for part in c.mlp_inputs), x_BTE, lora)
        gate, up = outputs[0].chunk(2, dim=-1) if c.fused else outputs
        if torch.is_grad_enabled() and isinstance(lora, GatedUpdate):
            return lora.adapt_gated(f"{name}.down_proj", gate, up, c.activation, self._products)
        x_BTE = activated(gate, c.activation) * up
        return self._linear((f"{name}.down_proj",), x_BTE, lora)[0]

    def _linear(
        self, names: tuple[str, ...], x_BTE: Tensor, lora: LowRankUpdate | None
    ) -> tuple[Tensor, ...]:
        if lora is None:
            return self._products(names, x_BTE)
        return lora.adapt(names, x_BTE, self._products)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, eps = self.weights[name], self.config.norm_eps
        if self.config.norms_from_one:
            # In fp32 throughout: beside one, bf16 would lose most of the weight.
            return rms_norm(x.float(), 1.0 + weight.float(), eps).to(x.dtype)
        return rms_norm(x, weight, eps)


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
    """Grouped attention (B, T, H, D) of what the mask shows, causal where there is none: True where
    a position is seen or, where scores are not capped, what is added to them."""
    B, T, H, D = q_BTHD.shape
    K, S = k_BKSD.shape[1:3]
    assert mask_BTS is not None or T in (1, S), "stored positions need a mask"
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
        positions_BT = torch.arange(S - T, S, device=q_BTHD.device)[None]
        mask_BTS = seen(positions_BT, S, AttentionRule())
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
