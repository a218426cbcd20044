"""Which configs are ours, which take the slow path, and which are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny_transformers import OURS, build
from tunesmith.errors import BaseModelError
from tunesmith.model.families import Llama3Rope, decoder_config, family_name

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
    assert family_name(build(kind).config.to_dict()) == kind.split("-")[0].replace(
        "llama3", "llama"
    )


@pytest.mark.parametrize(
    "model_type",
    ["qwen3_moe", "gemma2", "gemma3", "phi3", "smollm3", "mixtral", "gpt_neox", "", "llama4"],
)
def test_other_families_take_the_slow_path(model_type: str) -> None:
    assert decoder_config(config(model_type)) is None
    assert family_name(config(model_type)) == "other"


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("qwen3", {"attention_bias": True}),
        ("llama", {"hidden_act": "gelu"}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 512}),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("llama", {"partial_rotary_factor": 0.5}),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        ("llama", {"rope_parameters": "default"}),
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
    assert found.rope_theta == 5e5
    assert found.rope_scaling == Llama3Rope(8.0, 1.0, 4.0, 2048)


def test_defaults_are_those_of_transformers() -> None:
    llama = decoder_config(config("llama", num_key_value_heads=None))
    assert llama is not None
    assert (llama.num_kv_heads, llama.head_dim, llama.rope_theta) == (4, 16, 10000.0)
    assert (llama.norm_eps, llama.tie_embeddings, llama.qkv_bias) == (1e-6, False, False)
    qwen2, qwen3 = decoder_config(config("qwen2")), decoder_config(config("qwen3"))
    assert qwen2 is not None
    assert qwen2.qkv_bias
    assert qwen3 is not None
    assert (qwen3.qk_norm, qwen3.head_dim) == (True, 128)


@pytest.mark.parametrize(
    ("extra", "positions"),
    [({"sliding_window": 512}, 512), ({"sliding_window": None}, 2048), ({}, 2048)],
)
def test_the_context_ends_where_mistrals_window_would_slide(
    extra: dict[str, Any], positions: int
) -> None:
    found = decoder_config(config("mistral", **extra))
    assert found is not None
    assert found.max_positions == positions


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
