"""Families: which Hugging Face configs our decoder implements, and how they read as its switches.

A family is one entry of `FAMILIES`. `decoder_config` says None for whatever the decoder does not
do exactly as transformers does it (another activation, a bias more, a rotation it does not know):
such a model takes the slow path through transformers, and is never run approximately.

No torch here: registering a base must not cost its import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import BaseModelError

OTHER = "other"
MAX_POSITIONS = "max_position_embeddings"


@dataclass(frozen=True)
class Llama3Rope:
    """Frequency scaling of Llama 3.1 and later (transformers: rope_type "llama3")."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


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
    rope_theta: float = 10000.0
    rope_scaling: Llama3Rope | float | None = None
    """A Llama 3 rule, a linear factor, or none."""
    qkv_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = True


@dataclass(frozen=True)
class Family:
    """What sets one family apart, with the values transformers assumes for absent keys."""

    qkv_bias: bool = False
    qk_norm: bool = False
    default_kv_heads: int | None = None
    """None: as many as query heads."""
    default_head_dim: int | None = None
    """None: hidden size / query heads."""
    default_window: int | None = None
    """Sliding window where the config is silent; the context is capped at it."""


# SmolLM and SmolLM2 call themselves "llama"; SmolLM3 skips rotations and is not ours.
FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "mistral": Family(default_kv_heads=8, default_window=4096),
    "qwen2": Family(qkv_bias=True, default_kv_heads=32),
    "qwen3": Family(qk_norm=True, default_kv_heads=32, default_head_dim=128),
}


def family_name(config: Mapping[str, Any]) -> str:
    """A key of `FAMILIES` where our decoder runs this config, else "other"."""
    return OTHER if decoder_config(config) is None else str(config["model_type"])


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig | None:
    """The decoder's switches for a config.json, or None where it needs transformers.

    Raises BaseModelError where the config contradicts itself or lacks a dimension.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None or not _implemented(config):
        return None
    try:
        rope_theta, rope_scaling = _rope(config)
    except _NotOursError:
        return None
    num_heads = _count(config, "num_attention_heads")
    hidden_size = _count(config, "hidden_size")
    result = DecoderConfig(
        vocab_size=_count(config, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=_count(config, "intermediate_size"),
        num_layers=_count(config, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=_count(config, "num_key_value_heads", family.default_kv_heads or num_heads),
        head_dim=_count(config, "head_dim", family.default_head_dim or hidden_size // num_heads),
        max_positions=_context(config, family),
        norm_eps=_number(config, "rms_norm_eps", 1e-6),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        tie_embeddings=bool(config.get("tie_word_embeddings", False)),
    )
    if result.num_heads % result.num_kv_heads:
        raise BaseModelError(
            f"config.json: num_attention_heads ({result.num_heads}) is not a multiple of "
            f"num_key_value_heads ({result.num_kv_heads})."
        )
    if result.head_dim % 2:
        raise BaseModelError(f"config.json: head_dim is {result.head_dim}; it must be even.")
    return result


class _NotOursError(Exception):
    """A rotation the decoder does not implement."""


def _implemented(config: Mapping[str, Any]) -> bool:
    """Whether every switch outside the rotation is one the decoder has."""
    layer_types = config.get("layer_types") or []
    return (
        config.get("hidden_act", "silu") == "silu"
        and not config.get("attention_bias")
        and not config.get("mlp_bias")
        and not config.get("use_sliding_window")
        and all(kind == "full_attention" for kind in layer_types)
        and config.get("quantization_config") is None
    )


def _context(config: Mapping[str, Any], family: Family) -> int:
    positions = _count(config, MAX_POSITIONS)
    if family.default_window is None or config.get("sliding_window", 0) is None:
        return positions
    return min(positions, _count(config, "sliding_window", family.default_window))


def _rope(config: Mapping[str, Any]) -> tuple[float, Llama3Rope | float | None]:
    """Theta and scaling, from `rope_parameters` (transformers 5) or the older pair of keys."""
    rule = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rule, dict) or any(isinstance(value, dict) for value in rule.values()):
        raise _NotOursError
    for source in (rule, config):
        if source.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise _NotOursError
    theta = _number(rule, "rope_theta", _number(config, "rope_theta", 10000.0))
    kind = rule.get("rope_type") or rule.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, _number(rule, "factor")
    if kind != "llama3":
        raise _NotOursError
    # The order of transformers: a top-level key wins over the rule's own.
    pretrained = _count(rule, "original_max_position_embeddings", _count(config, MAX_POSITIONS))
    scaling = Llama3Rope(
        factor=_number(rule, "factor"),
        low_freq_factor=_number(rule, "low_freq_factor"),
        high_freq_factor=_number(rule, "high_freq_factor"),
        original_max_positions=_count(config, "original_max_position_embeddings", pretrained),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise BaseModelError("config.json: high_freq_factor must be above low_freq_factor.")
    return theta, scaling


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise BaseModelError(f"config.json lacks {key}. Copy the whole model directory again.")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BaseModelError(f"config.json: {key} is {value!r}; it must be a positive integer.")
    return value


def _number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise BaseModelError(f"config.json lacks {key}. Copy the whole model directory again.")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
        raise BaseModelError(f"config.json: {key} is {value!r}; it must be a positive number.")
    return float(value)
