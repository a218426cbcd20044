"""Families: which Hugging Face configs our decoder implements, and how they read as its switches.

A family is one entry of `FAMILIES`. `decoder_config` says None for whatever the decoder does not
do exactly as transformers does it (another activation, a rotation it does not know, attention to
later positions): such a model takes the slow path through transformers, and is never run
approximately.

No torch here: registering a base must not cost its import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tunesmith.errors import BaseModelError
from tunesmith.model.keys import NotOursError, count, number
from tunesmith.model.rope_rules import (
    MAX_POSITIONS,
    PLAIN_ROPE,
    Rope,
    YarnScaling,
    read_gemma3_ropes,
    read_phi3_ropes,
    read_ropes,
)

OTHER = "other"
QKV = ("q_proj", "k_proj", "v_proj")
GATE_UP = ("gate_proj", "up_proj")
LAYER_TYPES = {"full_attention", "sliding_attention"}
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


@dataclass(frozen=True)
class LayerKind:
    """What one layer may do otherwise than its neighbours."""

    window: int | None = None
    """Positions that are seen, the position itself included; None: all before it."""
    rope: Rope | None = PLAIN_ROPE
    """None: positions are not told apart."""


@dataclass(frozen=True)
class DecoderConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float = 1e-5
    kinds: tuple[LayerKind, ...] = (LayerKind(),)
    """One for each layer; fewer are repeated."""
    activation: str = "silu"
    """"silu" or "gelu_tanh"."""
    fused: bool = False
    """One linear makes queries, keys and values, and one the gate and what it lets through."""
    biased: tuple[str, ...] = ()
    """The linears with a bias, by the last part of their names."""
    qk_norm: bool = False
    """A norm on each query and key head."""
    norms_from_one: bool = False
    """Norms multiply by 1 + weight."""
    post_norms: bool = False
    """Norms also on what attention and MLP add."""
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    """None: 1 / sqrt(head_dim)."""
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    tie_embeddings: bool = True

    def kind(self, layer: int) -> LayerKind:
        return self.kinds[layer % len(self.kinds)]

    @property
    def attention_inputs(self) -> tuple[str, ...]:
        """The linears before attention."""
        return ("qkv_proj",) if self.fused else QKV

    @property
    def mlp_inputs(self) -> tuple[str, ...]:
        """The linears before the activation."""
        return ("gate_up_proj",) if self.fused else GATE_UP

    @property
    def block_norms(self) -> tuple[str, ...]:
        """The norms over hidden states, in order; the second is not the same one in both."""
        more = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
        return ("input_layernorm", "post_attention_layernorm", *(more if self.post_norms else ()))


def _none(config: Mapping[str, Any], layer: int) -> bool:
    return False


def _all(config: Mapping[str, Any], layer: int) -> bool:
    return True


def _every_other(config: Mapping[str, Any], layer: int) -> bool:
    return layer % 2 == 0


def _all_but_every_nth(config: Mapping[str, Any], layer: int) -> bool:
    return (layer + 1) % count(config, "sliding_window_pattern", 6) != 0


def _upper(config: Mapping[str, Any], layer: int) -> bool:
    return config.get("max_window_layers") == 0 or layer >= count(config, "max_window_layers", 28)


def _without_rope(config: Mapping[str, Any], layer: int) -> bool:
    listed = config.get("no_rope_layers")
    if listed is None:
        return (layer + 1) % count(config, "no_rope_layer_interval", 4) == 0
    if not isinstance(listed, list) or len(listed) <= layer:
        raise NotOursError
    return not listed[layer]


LayerRule = Callable[[Mapping[str, Any], int], bool]


@dataclass(frozen=True)
class Family:
    """What sets one family apart, with the values transformers assumes for absent keys."""

    slides: LayerRule = _none
    """Which layers have the window, where the config does not list them."""
    default_window: int | None = None
    window_switch: bool = False
    """There is a window only where `use_sliding_window` says so."""
    ropes: Callable[[Mapping[str, Any]], tuple[Rope, Rope]] = read_ropes
    """The rules of layers that see everything and of those with a window."""
    skips_rope: LayerRule = _none
    biased: tuple[str, ...] = ()
    """Linears that always have a bias."""
    bias_keys: bool = False
    """`attention_bias` and `mlp_bias` are heeded."""
    qk_norm: bool = False
    fused: bool = False
    gemma: bool = False
    """Norms that start from one and follow each part too; scaled embeddings; caps."""
    default_caps: tuple[float | None, float | None] = (None, None)
    """Of attention scores and of logits."""
    default_kv_heads: int | None = None
    """None: as many as query heads."""
    default_head_dim: int | None = None
    """None: hidden size / query heads."""
    default_eps: float = 1e-6
    default_tied: bool = False


_QWEN = Family(slides=_upper, default_window=4096, window_switch=True, default_kv_heads=32)
_GEMMA = Family(
    slides=_every_other,
    default_window=4096,
    bias_keys=True,
    gemma=True,
    default_kv_heads=4,
    default_head_dim=256,
    default_tied=True,
)
# SmolLM and SmolLM2 call themselves "llama", Phi-4 and Phi-4-mini "phi3".
FAMILIES: Mapping[str, Family] = {
    "llama": Family(bias_keys=True),
    "mistral": Family(slides=_all, default_window=4096, default_kv_heads=8),
    "qwen2": replace(_QWEN, biased=QKV),
    "qwen3": replace(_QWEN, bias_keys=True, qk_norm=True, default_head_dim=128),
    "smollm3": Family(
        slides=_without_rope,
        window_switch=True,
        ropes=partial(read_ropes, default_theta=2e6),
        skips_rope=_without_rope,
        bias_keys=True,
        default_kv_heads=4,
        default_tied=True,
    ),
    "phi3": Family(slides=_all, ropes=read_phi3_ropes, fused=True, default_eps=1e-5),
    "gemma2": replace(_GEMMA, default_caps=(50.0, 30.0)),
    "gemma3_text": replace(
        _GEMMA, slides=_all_but_every_nth, ropes=read_gemma3_ropes, qk_norm=True
    ),
}


def family_name(config: Mapping[str, Any]) -> str:
    """A key of `FAMILIES` where our decoder runs this config, else "other"."""
    return OTHER if decoder_config(config) is None else str(config["model_type"])


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig | None:
    """The decoder's switches for a config.json, or None where it needs transformers.

    Raises BaseModelError where the config contradicts itself or lacks a dimension.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return None
    try:
        result = _read(config, family)
    except NotOursError:
        return None
    if result.num_heads % result.num_kv_heads:
        raise BaseModelError(
            f"config.json: num_attention_heads ({result.num_heads}) is not a multiple of "
            f"num_key_value_heads ({result.num_kv_heads})."
        )
    if result.head_dim % 2:
        raise BaseModelError(f"config.json: head_dim is {result.head_dim}; it must be even.")
    return result


def _read(config: Mapping[str, Any], family: Family) -> DecoderConfig:
    if config.get("quantization_config") or config.get("use_bidirectional_attention"):
        raise NotOursError
    num_heads = count(config, "num_attention_heads")
    hidden_size = count(config, "hidden_size")
    kinds = _kinds(config, family)
    plain = DecoderConfig(
        vocab_size=count(config, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=count(config, "intermediate_size"),
        num_layers=len(kinds),
        num_heads=num_heads,
        num_kv_heads=count(config, "num_key_value_heads", family.default_kv_heads or num_heads),
        head_dim=count(config, "head_dim", family.default_head_dim or hidden_size // num_heads),
        max_positions=_context(config, kinds),
        norm_eps=number(config, "rms_norm_eps", family.default_eps),
        kinds=kinds,
        activation=_activation(config, family),
        fused=family.fused,
        biased=_biased(config, family),
        qk_norm=family.qk_norm,
        tie_embeddings=bool(config.get("tie_word_embeddings", family.default_tied)),
    )
    return _with_gemma(plain, config, family) if family.gemma else plain


def _with_gemma(plain: DecoderConfig, config: Mapping[str, Any], family: Family) -> DecoderConfig:
    of_scores, of_logits = family.default_caps
    return replace(
        plain,
        norms_from_one=True,
        post_norms=True,
        embedding_scale=math.sqrt(plain.hidden_size),
        attention_scale=number(config, "query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=_cap(config, "attn_logit_softcapping", of_scores),
        logit_softcap=_cap(config, "final_logit_softcapping", of_logits),
    )


def _cap(config: Mapping[str, Any], key: str, default: float | None) -> float | None:
    """An explicit null switches a cap off, which an absent key does not."""
    return None if config.get(key, default) is None else number(config, key, default)


def _activation(config: Mapping[str, Any], family: Family) -> str:
    key, default = ("hidden_act", "silu")
    if family.gemma:
        key, default = ("hidden_activation", "gelu_pytorch_tanh")
    name = str(config.get(key, default))
    if name not in ACTIVATIONS:
        raise NotOursError
    return ACTIVATIONS[name]


def _biased(config: Mapping[str, Any], family: Family) -> tuple[str, ...]:
    if not family.bias_keys:
        return family.biased
    attention = (*QKV, "o_proj") if config.get("attention_bias") else ()
    mlp = (*GATE_UP, "down_proj") if config.get("mlp_bias") else ()
    return (*attention, *mlp)


def _kinds(config: Mapping[str, Any], family: Family) -> tuple[LayerKind, ...]:
    window = _window(config, family)
    full, local = family.ropes(config)
    return tuple(
        LayerKind(
            window=window if slides else None,
            rope=None if family.skips_rope(config, layer) else local if slides else full,
        )
        for layer, slides in enumerate(_sliding(config, family, window is not None))
    )


def _window(config: Mapping[str, Any], family: Family) -> int | None:
    if family.window_switch and not config.get("use_sliding_window"):
        return None
    if config.get("sliding_window", family.default_window) is None:
        return None
    return count(config, "sliding_window", family.default_window)


def _sliding(config: Mapping[str, Any], family: Family, has_window: bool) -> list[bool]:
    """For each layer, whether it has the window."""
    layers = range(count(config, "num_hidden_layers"))
    sliding = [family.slides(config, layer) for layer in layers]
    if not has_window and not family.gemma:
        sliding = [False for _ in layers]
    if (listed := config.get("layer_types")) is not None:
        found = [kind == "sliding_attention" for kind in listed]
        # These two do not read the list.
        ignored = family.slides in (_none, _all) and found != sliding
        if ignored or len(found) != len(layers) or not set(listed) <= LAYER_TYPES:
            raise NotOursError
        sliding = found
    if any(sliding) and not has_window:
        raise NotOursError
    return sliding


def _context(config: Mapping[str, Any], kinds: tuple[LayerKind, ...]) -> int:
    """YaRN is added to a config to lengthen its context."""
    stretched = [
        int(kind.rope.scaling.factor * kind.rope.scaling.original_max_positions)
        for kind in kinds
        if kind.rope is not None and isinstance(kind.rope.scaling, YarnScaling)
    ]
    return max(count(config, MAX_POSITIONS), *stretched, 1)
