"""Which configs are ours, which take the slow path, and which are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny_transformers import OURS, build
from tunesmith.errors import BaseModelError
from tunesmith.model.families import decoder_config, family_name
from tunesmith.model.rope_rules import Llama3Scaling, LongScaling, Rope, YarnScaling

BASE: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def config(model_type: str, **extra: Any) -> dict[str, Any]:
    return {**BASE, "model_type": model_type, **extra}


@pytest.mark.parametrize("kind", OURS)
def test_what_transformers_saves_is_read(kind: str) -> None:
    saved = build(kind).config.to_dict()
    assert family_name(saved) == saved["model_type"]


@pytest.mark.parametrize(
    "model_type",
    ["qwen3_moe", "gemma", "gemma3", "phi", "phimoe", "mixtral", "gpt_neox", "", "llama4"],
)
def test_other_families_take_the_slow_path(model_type: str) -> None:
    assert decoder_config(config(model_type)) is None
    assert family_name(config(model_type)) == "other"


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("llama", {"hidden_act": "gelu"}),
        ("gemma2", {"hidden_activation": "gelu"}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
        ("gemma2", {"sliding_window": None}),
        ("llama", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}),
        ("gemma2", {"layer_types": ["full_attention"]}),
        ("gemma2", {"layer_types": "full_attention"}),
        ("smollm3", {"no_rope_layers": [1]}),
        ("llama", {"partial_rotary_factor": 0.5}),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        ("llama", {"rope_parameters": {"rope_type": "proportional"}}),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        ("llama", {"rope_parameters": "default"}),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("gemma3_text", {"rope_parameters": {"rope_type": "default"}}),
        ("gemma3_text", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}),
    ],
)
def test_switches_we_lack_take_the_slow_path(model_type: str, extra: dict[str, Any]) -> None:
    assert decoder_config(config(model_type, **extra)) is None


def test_both_spellings_of_the_rotation_mean_the_same() -> None:
    rule = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    old = config("llama", rope_theta=5e5, rope_scaling={"type": "llama3", **rule})
    new = config("llama", rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **rule})
    assert decoder_config(old) == decoder_config(new)
    found = decoder_config(new)
    assert found is not None
    assert found.kind(1).rope == Rope(5e5, Llama3Scaling(8.0, 1.0, 4.0, 2048))


def test_phi3_and_yarn_lengths_are_those_of_transformers() -> None:
    factors = {"short_factor": [1, 2], "long_factor": [3, 4], "type": "su"}
    phi3 = decoder_config(config("phi3", max_position_embeddings=16384, rope_scaling=factors))
    assert phi3 is not None
    scaling = phi3.kind(0).rope.scaling  # type: ignore[union-attr]
    assert isinstance(scaling, LongScaling)
    assert (scaling.short_factors, scaling.original_max_positions) == ((1.0, 2.0), 4096)
    assert scaling.attention_factor == pytest.approx((1 + 2 / 12) ** 0.5)
    rule = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    yarn = decoder_config(config("qwen2", rope_scaling=rule))
    assert yarn is not None
    assert isinstance(yarn.kind(0).rope.scaling, YarnScaling)  # type: ignore[union-attr]
    assert yarn.max_positions == 4096


def test_defaults_are_those_of_transformers() -> None:
    llama = decoder_config(config("llama", num_key_value_heads=None))
    assert llama is not None
    assert (llama.num_kv_heads, llama.head_dim, llama.kind(0).rope) == (4, 16, Rope(10000.0))
    assert (llama.norm_eps, llama.tie_embeddings, llama.biased) == (1e-6, False, ())
    qwen2, qwen3 = decoder_config(config("qwen2")), decoder_config(config("qwen3"))
    assert qwen2 is not None
    assert qwen2.biased == ("q_proj", "k_proj", "v_proj")
    assert qwen3 is not None
    assert (qwen3.qk_norm, qwen3.head_dim) == (True, 128)
    gemma2, gemma3 = decoder_config(config("gemma2")), decoder_config(config("gemma3_text"))
    assert gemma2 is not None
    assert (gemma2.attention_softcap, gemma2.logit_softcap) == (50.0, 30.0)
    assert (gemma2.head_dim, gemma2.attention_scale, gemma2.tie_embeddings) == (256, 1 / 16, True)
    assert gemma3 is not None
    assert (gemma3.attention_softcap, gemma3.logit_softcap) == (None, None)
    uncapped = decoder_config(config("gemma2", attn_logit_softcapping=None))
    assert uncapped is not None
    assert (uncapped.attention_softcap, uncapped.logit_softcap) == (None, 30.0)


@pytest.mark.parametrize(
    ("model_type", "extra", "windows"),
    [
        ("mistral", {"sliding_window": 512}, [512] * 6),
        ("mistral", {"sliding_window": None}, [None] * 6),
        ("mistral", {}, [4096] * 6),
        ("phi3", {}, [None] * 6),
        ("llama", {"sliding_window": 512}, [None] * 6),
        ("qwen2", {"sliding_window": 512, "max_window_layers": 4}, [None] * 6),
        (
            "qwen2",
            {"sliding_window": 9, "max_window_layers": 4, "use_sliding_window": True},
            [None] * 4 + [9] * 2,
        ),
        (
            "qwen3",
            {"sliding_window": 9, "max_window_layers": 0, "use_sliding_window": True},
            [9] * 6,
        ),
        (
            "smollm3",
            {"sliding_window": 9, "use_sliding_window": True},
            [None] * 3 + [9, None, None],
        ),
        ("gemma2", {"sliding_window": 9}, [9, None] * 3),
        ("gemma3_text", {"sliding_window": 9}, [9] * 5 + [None]),
        ("gemma3_text", {"sliding_window": 9, "sliding_window_pattern": 2}, [9, None] * 3),
        (
            "gemma3_text",
            {"sliding_window": 9, "layer_types": ["sliding_attention"] + ["full_attention"] * 5},
            [9] + [None] * 5,
        ),
    ],
)
def test_windows_are_where_transformers_has_them(
    model_type: str, extra: dict[str, Any], windows: list[int | None]
) -> None:
    found = decoder_config(config(model_type, **extra, num_hidden_layers=6))
    assert found is not None
    assert [found.kind(layer).window for layer in range(6)] == windows
    assert found.max_positions == 2048


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"num_key_value_heads": 3}, "not a multiple"),
        ({"head_dim": 15}, "even"),
        ({"rope_scaling": {"type": "linear"}}, "lacks factor"),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1]}}, "lacks short_factor"),
        ({"rope_scaling": {"type": "longrope", "short_factor": 1}}, "short_factor must be a list"),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8,
                    "low_freq_factor": 4,
                    "high_freq_factor": 4,
                }
            },
            "high_freq_factor",
        ),
    ],
)
def test_contradictions_are_named(extra: dict[str, Any], says: str) -> None:
    with pytest.raises(BaseModelError, match=says):
        decoder_config(config("llama", **extra))
