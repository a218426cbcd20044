"""The decoder against transformers: same weights, same logits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_transformers import OURS, build
from tunesmith.model.attention import AttentionRule, attend, seen
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter, LoraSpec

Saved = Callable[[str], tuple[Path, Any]]


class Cache:
    """Keys and values appended along S: the plainest cache there is."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        if layer in self.layers:
            old_k, old_v = self.layers[layer]
            k, v = torch.cat((old_k, k), 1), torch.cat((old_v, v), 1)
        self.layers[layer] = (k, v)
        num_new, num_stored = q.shape[1], k.shape[1]
        mask_BTS = seen(torch.arange(num_stored - num_new, num_stored)[None], num_stored, rule)
        return attend(q, k.transpose(1, 2), v.transpose(1, 2), mask_BTS, rule)


@pytest.mark.parametrize("kind", OURS)
def test_logits_equal_transformers_in_fp32(kind: str, saved: Saved, ids_BT: Tensor) -> None:
    directory, reference = saved(kind)
    model = load_model(directory)
    assert not model.slow
    assert model.dtype == torch.float32
    with torch.no_grad():
        expected = reference(ids_BT).logits
        found = model.logits(model.hidden(ids_BT))
    assert expected.std() > 0.3  # far from a constant
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3-long", "gemma2", "gemma3"])
def test_logits_stay_close_in_bf16(kind: str, saved: Saved, ids_BT: Tensor) -> None:
    directory, reference = saved(kind)
    model = load_model(directory, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        expected = reference(ids_BT).logits
        found = model.logits(model.hidden(ids_BT)).float()
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.std())


@pytest.mark.parametrize(
    "kind", ["llama3-rope", "mistral-window", "qwen3", "smollm3", "phi3-long", "gemma2", "gemma3"]
)
def test_decoding_with_a_cache_equals_the_whole_row(
    kind: str, saved: Saved, ids_BT: Tensor
) -> None:
    model = load_model(saved(kind)[0])
    whole = model.hidden(ids_BT)
    cache, parts, start = Cache(), [], 0
    for T in (35, 7, *[1] * 18):  # a prompt, a second chunk, then one by one
        stop = start + T
        positions_BT = torch.arange(start, stop)[None]
        parts.append(
            model.hidden(ids_BT[:, start:stop], positions_BT=positions_BT, attention=cache)
        )
        start = stop
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "phi3-long", "gemma2", "gemma3"])
def test_what_nobody_wants_is_left_out_and_changes_nothing(
    kind: str, saved: Saved, ids_BT: Tensor
) -> None:
    model = load_model(saved(kind)[0])
    adapter = Adapter.create(model.linears, LoraSpec(4, 8.0), 0).train()
    for matrix in adapter.b.values():
        torch.nn.init.normal_(matrix, 0, 0.1)
    row, places_N = ids_BT[:1], torch.tensor([3, 9, 9, 40])

    def with_gradients(states_1NE: Tensor) -> list[Tensor]:
        learned = list(adapter.parameters())
        return [states_1NE, *torch.autograd.grad(states_1NE.square().sum(), learned)]

    whole = with_gradients(model.hidden(row, lora=adapter)[:, places_N])
    some = with_gradients(model.hidden(row, lora=adapter, places_N=places_N))
    for found, expected in zip(some, whole, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale)


def test_padding_on_the_right_changes_nothing(saved: Saved, ids_BT: Tensor) -> None:
    model = load_model(saved("llama")[0])
    padded = ids_BT.clone()
    padded[0, 25:] = 0
    torch.testing.assert_close(
        model.hidden(padded)[:1, :25], model.hidden(ids_BT[:1, :25]), rtol=1e-5, atol=1e-5
    )


def test_bf16_checkpoint_is_kept_as_stored(tmp_path: Path) -> None:
    build("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(tmp_path).dtype == torch.bfloat16
    assert load_model(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_sharded_checkpoints_load(tmp_path: Path, ids_BT: Tensor) -> None:
    reference = build("llama")
    reference.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model = load_model(tmp_path)
    with torch.no_grad():
        expected = reference(ids_BT).logits
    torch.testing.assert_close(model.logits(model.hidden(ids_BT)), expected, rtol=1e-4, atol=1e-4)


def test_config_of_older_transformers_loads_the_same(
    saved: Saved, tmp_path: Path, ids_BT: Tensor
) -> None:
    directory, _ = saved("llama3-rope")
    config = json.loads((directory / "config.json").read_text())
    rule = config.pop("rope_parameters")
    config["rope_theta"] = rule.pop("rope_theta")
    config["rope_scaling"] = rule
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(directory / "model.safetensors")
    new, old = load_model(directory), load_model(tmp_path)
    assert torch.equal(new.hidden(ids_BT), old.hidden(ids_BT))


def old_phi3(config: dict[str, Any]) -> None:
    rule = config.pop("rope_parameters")
    config["rope_theta"] = rule.pop("rope_theta")
    config["partial_rotary_factor"] = rule.pop("partial_rotary_factor")
    del rule["rope_type"], rule["original_max_position_embeddings"]
    config["rope_scaling"] = {**rule, "type": "longrope"}


def old_gemma3(config: dict[str, Any]) -> None:
    rules = config.pop("rope_parameters")
    config["rope_theta"] = rules["full_attention"].pop("rope_theta")
    config["rope_local_base_freq"] = rules["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = rules["full_attention"]
    config["sliding_window_pattern"] = 6
    del config["layer_types"]


@pytest.mark.parametrize(("kind", "change"), [("phi3-long", old_phi3), ("gemma3", old_gemma3)])
def test_older_spellings_mean_what_transformers_reads(
    kind: str, change: Callable[[dict[str, Any]], None], saved: Saved, tmp_path: Path
) -> None:
    import transformers

    directory, _ = saved(kind)
    config = json.loads((directory / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(directory / "model.safetensors")
    ids_BT = torch.arange(3, 63)[None]
    with torch.no_grad():
        expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)(ids_BT).logits
    model = load_model(tmp_path)
    assert not model.slow
    torch.testing.assert_close(model.logits(model.hidden(ids_BT)), expected, rtol=0, atol=1e-4)
    assert torch.equal(model.hidden(ids_BT), load_model(directory).hidden(ids_BT))


def test_our_families_never_import_transformers(saved: Saved) -> None:
    directory, _ = saved("qwen3")
    code = (
        "import sys; from pathlib import Path; from tunesmith.model.load import load_model;"
        f"load_model(Path({str(directory)!r}));"
        "assert 'transformers' not in sys.modules and 'peft' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_families_need_no_torch() -> None:
    code = (
        "import sys, tunesmith.model.families, tunesmith.model.adapter_files;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("rule", [AttentionRule(), AttentionRule(window=5, scale=0.3)])
@pytest.mark.parametrize("T", [1, 20])
def test_capped_attention_is_attention_where_the_cap_is_far(rule: AttentionRule, T: int) -> None:
    q, k, v = torch.randn(2, T, 6, 8), torch.randn(2, 2, 20, 8), torch.randn(2, 2, 20, 8)
    mask_BTS = seen(torch.arange(20 - T, 20)[None], 20, rule)
    plain = attend(q, k, v, mask_BTS, rule)
    far = attend(q, k, v, mask_BTS, replace(rule, softcap=1e4))
    near = attend(q, k, v, mask_BTS, replace(rule, softcap=0.5))
    torch.testing.assert_close(far, plain, rtol=1e-4, atol=1e-5)
    assert (near - plain).abs().max() > 0.05
