"""Rope rules: how a config.json says that positions turn queries and keys.

Three spellings are read: `rope_parameters` of transformers 5, the older `rope_theta` with
`rope_scaling`, and rules kept for each kind of layer. What they say is computed by `rotation.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import BaseModelError
from tunesmith.model.keys import NotOursError, count, number, numbers

MAX_POSITIONS = "max_position_embeddings"
ORIGINAL_POSITIONS = "original_max_position_embeddings"


@dataclass(frozen=True)
class LinearScaling:
    """Every frequency is divided by `factor` ("linear")."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Long waves are slowed by `factor`, short ones kept, those between are blended ("llama3")."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True)
class YarnScaling:
    """As in Llama 3, with bounds in turns over the original context (Peng et al. 2023, "yarn")."""

    factor: float
    original_max_positions: int
    beta_fast: float
    beta_slow: float
    truncate: bool
    attention_factor: float
    """What the rotated queries and keys are multiplied by."""


@dataclass(frozen=True)
class LongScaling:
    """A divisor for each frequency, others where a sequence outgrows `original_max_positions`
    (Ding et al. 2024, "longrope"; Phi-3 also calls it "su")."""

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_max_positions: int
    attention_factor: float
    """What the rotated queries and keys are multiplied by."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: pair i of a head's dimensions turns by theta^(-2i/D) a position,
    before scaling."""

    theta: float = 10000.0
    scaling: LinearScaling | Llama3Scaling | YarnScaling | LongScaling | None = None
    share: float = 1.0
    """The first part of each head, which turns; the rest is left alone."""


PLAIN_ROPE = Rope()

Ropes = tuple[Rope, Rope]
"""The rules of layers that see everything and of those with a window."""


def read_ropes(
    config: Mapping[str, Any], default_theta: float = 10000.0, *, partial: bool = False
) -> Ropes:
    """One rule for all layers. `partial`: the family may turn a part of each head.

    Raises NotOursError for a rule the decoder lacks, BaseModelError for one that is wrong.
    """
    rule = _rule(config)
    share = number(rule, "partial_rotary_factor", number(config, "partial_rotary_factor", 1.0))
    if share > 1 or (share < 1 and not partial):
        raise NotOursError
    theta = number(rule, "rope_theta", number(config, "rope_theta", default_theta))
    rope = Rope(theta, _scaling(_kind(rule), rule, config), share)
    return rope, rope


def read_phi3_ropes(config: Mapping[str, Any]) -> Ropes:
    """Phi-3 knows one scaling, under three names."""
    rule = _rule(config)
    if _kind(rule) not in ("default", "su", "yarn", "longrope"):
        raise NotOursError
    if _kind(rule) != "default":
        rule = {**rule, "rope_type": "longrope"}
    # transformers takes 4096 for an absent length, whatever the rule itself says.
    original = count(config, ORIGINAL_POSITIONS, 4096)
    return read_ropes({**config, "rope_scaling": rule, ORIGINAL_POSITIONS: original}, partial=True)


def read_gemma3_ropes(config: Mapping[str, Any]) -> Ropes:
    rules = config.get("rope_parameters") or {}
    if not isinstance(rules, dict) or not rules.keys() <= {"full_attention", "sliding_attention"}:
        raise NotOursError
    whole = {**(rules.get("full_attention") or {}), **(config.get("rope_scaling") or {})}
    local = rules.get("sliding_attention") or {}
    if not {_kind(whole), _kind(local)} <= {"default", "linear"}:
        raise NotOursError
    theta = number(whole, "rope_theta", number(config, "rope_theta", 1e6))
    local_theta = number(local, "rope_theta", number(config, "rope_local_base_freq", 1e4))
    return (
        Rope(theta, _scaling(_kind(whole), whole, config)),
        Rope(local_theta, _scaling(_kind(local), local, config)),
    )


def _rule(config: Mapping[str, Any]) -> dict[str, Any]:
    rule = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rule, dict) or any(isinstance(value, dict) for value in rule.values()):
        raise NotOursError
    return rule


def _kind(rule: Mapping[str, Any]) -> str:
    return str(rule.get("rope_type") or rule.get("type") or "default")


def _scaling(
    kind: str, rule: Mapping[str, Any], config: Mapping[str, Any]
) -> LinearScaling | Llama3Scaling | YarnScaling | LongScaling | None:
    # "dynamic" begins beyond max_position_embeddings, which is where contexts end here.
    if kind in ("default", "dynamic"):
        return None
    if kind == "linear":
        return LinearScaling(number(rule, "factor"))
    # The order of transformers: a top-level key wins over the rule's own.
    own = count(rule, ORIGINAL_POSITIONS, count(config, MAX_POSITIONS))
    original = count(config, ORIGINAL_POSITIONS, own)
    if kind == "llama3":
        return _llama3(rule, original)
    if kind == "yarn":
        return _yarn(rule, original, count(config, MAX_POSITIONS))
    if kind == "longrope":
        return _long(rule, original, count(config, MAX_POSITIONS))
    raise NotOursError


def _llama3(rule: Mapping[str, Any], original: int) -> Llama3Scaling:
    scaling = Llama3Scaling(
        factor=number(rule, "factor"),
        low_freq_factor=number(rule, "low_freq_factor"),
        high_freq_factor=number(rule, "high_freq_factor"),
        original_max_positions=original,
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise BaseModelError("config.json: high_freq_factor must be above low_freq_factor.")
    return scaling


def _yarn(rule: Mapping[str, Any], original: int, max_positions: int) -> YarnScaling:
    factor = number(rule, "factor", max_positions / original)
    over, under = rule.get("mscale"), rule.get("mscale_all_dim")
    default = _yarn_gain(factor, 1.0)
    if over and under:
        default = _yarn_gain(factor, over) / _yarn_gain(factor, under)
    return YarnScaling(
        factor=factor,
        original_max_positions=original,
        beta_fast=number(rule, "beta_fast", 32.0),
        beta_slow=number(rule, "beta_slow", 1.0),
        truncate=bool(rule.get("truncate", True)),
        attention_factor=number(rule, "attention_factor", default),
    )


def _yarn_gain(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _long(rule: Mapping[str, Any], original: int, max_positions: int) -> LongScaling:
    factor = number(rule, "factor", max_positions / original)
    default = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return LongScaling(
        short_factors=numbers(rule, "short_factor"),
        long_factors=numbers(rule, "long_factor"),
        original_max_positions=original,
        attention_factor=number(rule, "attention_factor", default),
    )
