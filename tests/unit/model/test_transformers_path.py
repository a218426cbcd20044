"""The slow path: other families through transformers, with the same adapters and answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_transformers import SLOW, build
from tunesmith.errors import BaseModelError
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.model.transformers_path import TransformersModel

Saved = Callable[[str], tuple[Path, Any]]


def load(directory: Path) -> TransformersModel:
    model = load_model(directory)
    assert isinstance(model, TransformersModel)
    assert model.slow
    return model


def trained(model: TransformersModel) -> Adapter:
    adapter = Adapter.create(model.linears, LoraSpec(rank=4, alpha=8), 0)
    for seed, b in enumerate(adapter.b.values()):
        b.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    return adapter


@pytest.mark.parametrize("kind", SLOW)
def test_hidden_and_head_give_the_models_own_logits(
    kind: str, saved: Saved, ids_BT: Tensor
) -> None:
    directory, reference = saved(kind)
    reference.set_attn_implementation("eager")  # VaultGemma caps its attention only there
    model = load(directory)
    with torch.no_grad():
        expected = reference(ids_BT).logits
    assert model.vocab_size == expected.shape[-1]
    found = model.logits(model.hidden(ids_BT))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", SLOW)
def test_steps_and_padding_equal_the_whole_row(kind: str, saved: Saved, ids_BT: Tensor) -> None:
    model = load(saved(kind)[0])
    adapter, row = trained(model), ids_BT[:1]
    whole = model.hidden(row, lora=adapter).detach()
    padded = torch.cat((row, torch.zeros(1, 9, dtype=torch.long)), 1)
    scale = float(whole.abs().max())
    with torch.no_grad():
        found = model.hidden(padded, lora=adapter)[:, :60]
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-5 * scale)
    with torch.no_grad():
        some = model.hidden(row, lora=adapter, places_N=torch.tensor([2, 30]))
    torch.testing.assert_close(some, whole[:, [2, 30]], rtol=0, atol=2e-5 * scale)
    parts, past = [], None
    for piece in row.split([50, 1, 1, 8], 1):
        hidden, past = model.step(piece, past, adapter)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("kind", ["gpt-neox", "phi", "gpt2"])
def test_peft_reads_the_adapter_the_same(
    kind: str, saved: Saved, tmp_path: Path, ids_BT: Tensor
) -> None:
    import peft

    directory, _ = saved(kind)
    model = load(directory)
    adapter = trained(model)
    adapter.save(tmp_path, kind, transposed=model.transposed)
    theirs = peft.PeftModel.from_pretrained(build(kind), tmp_path)
    assert sum("lora_B" in name for name, _ in theirs.named_parameters()) == len(model.linears)
    with torch.no_grad():
        expected = theirs(ids_BT).logits
        found = model.logits(model.hidden(ids_BT, lora=Adapter.load(tmp_path, model.linears)))
        plain = model.logits(model.hidden(ids_BT))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    assert (found - plain).abs().max() > 1e-3


def test_only_linears_of_the_blocks_are_adapted(saved: Saved) -> None:
    assert load(saved("gpt-neox")[0]).linears == {
        f"gpt_neox.layers.{layer}.{part}": shape
        for layer in range(3)
        for part, shape in {
            "attention.query_key_value": (144, 48),
            "attention.dense": (48, 48),
            "mlp.dense_h_to_4h": (80, 48),
            "mlp.dense_4h_to_h": (48, 80),
        }.items()
    }


def test_gpt2_linears_are_outputs_by_inputs(saved: Saved) -> None:
    model = load(saved("gpt2")[0])
    assert model.transposed
    assert model.linears["transformer.h.0.attn.c_attn"] == (144, 48)
    assert not load(saved("phi")[0]).transposed


def test_gradients_reach_the_adapter_and_nothing_else(saved: Saved, ids_BT: Tensor) -> None:
    model = load(saved("vaultgemma")[0])
    adapter = trained(model).train()
    model.logits(model.hidden(ids_BT, lora=adapter)).logsumexp(-1).sum().backward()
    for parameter in adapter.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model._model.parameters())


def test_the_adapter_is_gone_after_the_call(saved: Saved, ids_BT: Tensor) -> None:
    model = load(saved("phi")[0])
    plain = model.hidden(ids_BT)
    model.hidden(ids_BT, lora=trained(model))
    assert torch.equal(model.hidden(ids_BT), plain)
    with pytest.raises(RuntimeError):
        model.hidden(ids_BT[:, :, None, None, None], lora=trained(model))
    assert torch.equal(model.hidden(ids_BT), plain)


def copy(source: Path, target: Path) -> dict[str, Tensor]:
    (target / "config.json").write_text((source / "config.json").read_text())
    return load_file(source / "model.safetensors")


def test_weights_left_at_random_are_refused(saved: Saved, tmp_path: Path) -> None:
    weights = copy(saved("phi")[0], tmp_path)
    del weights["model.layers.1.mlp.fc1.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"lack model\.layers\.1\.mlp\.fc1\.weight"):
        load_model(tmp_path)


def test_pickled_weights_are_never_read(saved: Saved, tmp_path: Path) -> None:
    torch.save(copy(saved("phi")[0], tmp_path), tmp_path / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="cannot load"):
        load_model(tmp_path)


def test_code_in_the_directory_is_never_run(saved: Saved, tmp_path: Path) -> None:
    save_file(copy(saved("phi")[0], tmp_path), tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()")
    with pytest.raises(BaseModelError, match="cannot load"):
        load_model(tmp_path)
    assert not list(tmp_path.glob("ran"))
    assert not Path("ran").exists()


def test_a_head_that_is_more_than_a_product_is_refused(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(saved("cohere")[0])
    monkeypatch.setattr(model._config, "logit_scale", None)
    with pytest.raises(BaseModelError, match="more than one product"):
        model._prove()


def test_a_model_whose_states_cannot_be_read_is_refused(saved: Saved) -> None:
    model = load(saved("llama4")[0])
    model._body = model._model
    with pytest.raises(BaseModelError, match="hidden states cannot be read"):
        model._prove()


def test_without_transformers_the_extra_is_named(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BaseModelError, match=r"tunesmith\[transformers\]"):
        load_model(saved("phi")[0])
