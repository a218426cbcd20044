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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunesmith.model.attention import Attend, Attention, AttentionRule, attend_stored, causal
from tunesmith.model.families import DecoderConfig
from tunesmith.model.fixed import Factor
from tunesmith.model.passes import activated, rms_norm
from tunesmith.model.rope_rules import LongScaling, Rope
from tunesmith.model.rotation import Rotation, Turning, rotate
from tunesmith.model.shapes import EMBEDDING, HEAD, linear_shapes

# Cosines and sines of the positions of a pass, for each rule that some layer has.
Turns = dict[Rope, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Block:
    """A layer: the names of its weights and linears, and how it attends."""

    layer: int
    norms: tuple[str, ...]
    queries: tuple[str, ...]
    """Linears of queries, keys and values."""
    qk_norms: tuple[str, str] | None
    out: tuple[str]
    gates: tuple[str, ...]
    down: tuple[str]
    rope: Rope | None
    rule: AttentionRule


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
        return tuple(F.linear(x_BTE, w[f"{name}.weight"], self.bias(name)) for name in names)

    def factor(self, name: str) -> Factor:
        """What the input of a linear is multiplied with."""
        return self.weights[f"{name}.weight"]

    def bias(self, name: str) -> Tensor | None:
        return self.weights.get(f"{name}.bias")


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
        self._blocks = blocks(config)
        self._rotations: dict[Rope, Turning] = {
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
    def kept_weights(self) -> Collection[Tensor]:
        """Those that are read as they are kept."""
        return self.weights.values()

    @property
    def head(self) -> Tensor:
        """(V, E): one row for each token, which scores it."""
        return self.weights[EMBEDDING if self.config.tie_embeddings else HEAD]

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """What LoRA adapts: every linear of the blocks, in order, as (outputs, inputs)."""
        return linear_shapes(self.config)

    @property
    def last_linears(self) -> tuple[str, ...]:
        """Those that only positions go through that are wanted (`hidden`)."""
        last = self._blocks[-1]
        return (*last.out, *last.gates, *last.down)

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
        places_N: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, E), normalised, before the head.

        Without `attention` every position attends to itself and what came before it, so rows may
        be padded on the right. With `recompute` a layer keeps only its input for the backward pass.
        Single positions of N sequences may come as (N,): T is then left out everywhere. Of the
        one row that there is `places_N` are those that are wanted (1, N, E): the others are left
        out where they are of no more use, behind the attention of the last layer.
        """
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
        x = F.embedding(ids_BT, self.weights[EMBEDDING])
        if self.config.embedding_scale != 1.0:
            x = x * self._embedding_scale
        turns = {rope: turn(positions_BT, x.dtype) for rope, turn in self._rotations.items()}
        x = self._through(self._blocks, x, turns, attention or causal, lora, recompute, places_N)
        return self._norm("model.norm.weight", x)

    def _through(
        self,
        blocks: Sequence[Block],
        x: Tensor,
        turns: Turns,
        attention: Attention,
        lora: LowRankUpdate | None,
        recompute: bool,
        places_N: Tensor | None,
    ) -> Tensor:
        """What the layers make of hidden states; the last one gives those that are wanted."""
        for block in blocks:
            wanted = places_N if block is self._blocks[-1] else None
            arguments = (block, x, turns, attention, lora, wanted)
            if recompute:
                x = checkpoint(self._layer, *arguments, use_reentrant=False)
            else:
                x = self._layer(*arguments)
        return x

    def _layer(
        self,
        block: Block,
        x: Tensor,
        turns: Turns,
        attention: Attention,
        lora: LowRankUpdate | None,
        places_N: Tensor | None,
    ) -> Tensor:
        before, after, *more = block.norms
        added = self._attention(block, self._norm(before, x), turns, attention, lora, places_N)
        x = x if places_N is None else x.index_select(1, places_N)
        if more:
            # Gemma: what each part adds is normalised too.
            x = x + self._norm(after, added)
            added = self._mlp(block, self._norm(more[0], x), lora)
            return x + self._norm(more[1], added)
        x = x + added
        return x + self._mlp(block, self._norm(after, x), lora)

    @property
    def attend(self) -> Attend:
        """How stored keys and values are read where nothing is learned."""
        return attend_stored

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for any stack of hidden states (..., E) -> (..., V)."""
        name = EMBEDDING if self.config.tie_embeddings else HEAD
        (logits,) = self._products((name.removesuffix(".weight"),), hidden)
        cap = self.config.logit_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _attention(
        self,
        block: Block,
        x_BTE: Tensor,
        turns: Turns,
        attention: Attention,
        lora: LowRankUpdate | None,
        places_N: Tensor | None,
    ) -> Tensor:
        q, k, v = self._heads(block, x_BTE, turns, lora)
        out_BTHD = attention(block.layer, q, k, v, block.rule)
        out_BTHD = out_BTHD if places_N is None else out_BTHD.index_select(1, places_N)
        (out,) = self._linear(block.out, out_BTHD.flatten(-2), lora)
        return out

    def _heads(
        self, block: Block, x_BTE: Tensor, turns: Turns, lora: LowRankUpdate | None
    ) -> tuple[Tensor, ...]:
        """Queries (B, T, H, D), keys and values (B, T, K, D)."""
        c = self.config
        outputs = self._linear(block.queries, x_BTE, lora)
        if c.fused:
            kv_size = c.num_kv_heads * c.head_dim
            outputs = torch.split(outputs[0], [c.num_heads * c.head_dim, kv_size, kv_size], -1)
        q, k, v = (each.view(*each.shape[:-1], -1, c.head_dim) for each in outputs)
        if block.qk_norms is not None:
            q, k = (self._norm(name, x) for name, x in zip(block.qk_norms, (q, k), strict=True))
        if block.rope is not None:
            q, k = rotate(q, *turns[block.rope]), rotate(k, *turns[block.rope])
        return q, k, v

    def _mlp(self, block: Block, x_BTE: Tensor, lora: LowRankUpdate | None) -> Tensor:
        kind = self.config.activation
        outputs = self._linear(block.gates, x_BTE, lora)
        gate, up = outputs[0].chunk(2, dim=-1) if self.config.fused else outputs
        if torch.is_grad_enabled() and isinstance(lora, GatedUpdate):
            return lora.adapt_gated(*block.down, gate, up, kind, self._products)
        (down,) = self._linear(block.down, activated(gate, kind) * up, lora)
        return down

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


def blocks(config: DecoderConfig) -> list[Block]:
    """The layers, in order."""
    return [_block(config, layer) for layer in range(config.num_layers)]


def _block(c: DecoderConfig, layer: int) -> Block:
    name, kind = f"model.layers.{layer}", c.kind(layer)
    qk_norms = f"{name}.self_attn.q_norm.weight", f"{name}.self_attn.k_norm.weight"
    return Block(
        layer,
        norms=tuple(f"{name}.{norm}.weight" for norm in c.block_norms),
        queries=tuple(f"{name}.self_attn.{part}" for part in c.attention_inputs),
        qk_norms=qk_norms if c.qk_norm else None,
        out=(f"{name}.self_attn.o_proj",),
        gates=tuple(f"{name}.mlp.{part}" for part in c.mlp_inputs),
        down=(f"{name}.mlp.down_proj",),
        rope=kind.rope,
        rule=AttentionRule(kind.window, c.attention_scale, c.attention_softcap),
    )
