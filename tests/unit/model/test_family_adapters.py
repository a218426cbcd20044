"""Adapters of each family, against PEFT on the transformers model: answers, gradients, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_transformers import build
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter, LoraSpec

Saved = Callable[[str], tuple[Path, Any]]
FAMILIES = [
    *("llama-bias", "mistral-window", "qwen2-window", "smollm3"),
    *("phi3", "phi3-long", "gemma2", "gemma3"),
]


@pytest.mark.parametrize("kind", FAMILIES)
def test_peft_trains_our_adapter_the_same(
    kind: str, saved: Saved, tmp_path: Path, ids_BT: Tensor
) -> None:
    """Rows longer than the windows and the original length: equal logits, equal gradients."""
    import peft

    model = load_model(saved(kind)[0])
    adapter = Adapter.create(model.linears, LoraSpec(rank=4, alpha=8), 0)
    for seed, b in enumerate(adapter.b.values()):
        b.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    adapter.save(tmp_path, kind)
    theirs = peft.PeftModel.from_pretrained(build(kind), tmp_path, is_trainable=True)
    expected = theirs(ids_BT).logits
    found = model.logits(model.hidden(ids_BT, lora=adapter.train()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    for logits in (expected, found):
        logits.logsumexp(-1).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert len(gradients) == len(adapter.parameters())
    for side, matrices in (("lora_A", adapter.a), ("lora_B", adapter.b)):
        for name, matrix in matrices.items():
            gradient = gradients[f"base_model.model.{name}.{side}.default.weight"]
            atol = 1e-4 * float(gradient.abs().max())
            torch.testing.assert_close(matrix.grad, gradient, rtol=1e-3, atol=atol)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("phi3-long", ["qkv_proj", "gate_up_proj"]),
        ("gemma2", ["q_proj", "down_proj"]),
        ("gemma3", "all-linear"),
    ],
)
def test_we_read_pefts_adapter_the_same(
    kind: str, targets: list[str] | str, saved: Saved, tmp_path: Path, ids_BT: Tensor
) -> None:
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(build(kind), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
        theirs.save_pretrained(tmp_path)
        expected = theirs.eval()(ids_BT).logits
    model = load_model(saved(kind)[0])
    found = model.logits(model.hidden(ids_BT, lora=Adapter.load(tmp_path, model.linears)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
