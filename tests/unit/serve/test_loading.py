"""What is decided before a model is loaded."""

from __future__ import annotations

import ctypes
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_base import TINY, write_tiny_base
from tunesmith.bases import embedded_directory
from tunesmith.errors import AdapterError, BaseModelError
from tunesmith.model import native, precision, products
from tunesmith.model.adapter_files import CONFIG, LoraSpec
from tunesmith.model.frozen import FrozenDecoder
from tunesmith.model.listing import write_listing
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.nf4_write import write_nf4
from tunesmith.model.precision import bf16_speedup, compute_dtype
from tunesmith.model.shapes import EMBEDDING, weight_shapes
from tunesmith.serve.loading import (
    BasePlan,
    load_adapter,
    load_base,
    plan_base,
    signature,
)
from tunesmith.serve.protocol import AdapterRef

WIDE = {"hidden_size": 2048, "intermediate_size": 8192}


@pytest.mark.parametrize(
    ("config", "device", "speedup", "expected"),
    [
        ({"torch_dtype": "float32", **WIDE}, "cpu", 9.0, torch.float32),
        ({"dtype": "bfloat16", **WIDE}, "cpu", 1.5, torch.bfloat16),
        ({"dtype": "bfloat16", **WIDE}, "cpu", 1.1, torch.float32),
        ({"dtype": "float16", **WIDE}, "cpu", 9.0, torch.float32),
        ({"dtype": "bfloat16", "hidden_size": 192}, "cpu", 9.0, torch.float32),
        ({"dtype": "bfloat16"}, "cuda", 0.0, None),
        ({}, "cpu", 9.0, torch.float32),
    ],
)
def test_bf16_is_for_large_models_that_gain(
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    device: str,
    speedup: float,
    expected: torch.dtype | None,
) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda *_: speedup)
    assert compute_dtype(config, device) is expected


def test_the_speedup_is_measured() -> None:
    assert 0.01 < bf16_speedup(64, 128) < 100


def test_sixteen_bits_computed_in_thirty_two_stay_so_or_take_twice_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_tiny_base(tmp_path / "base")
    size = (base / "model.safetensors").stat().st_size
    assert plan_base(base, "cpu", int8=False) == BasePlan(size, torch.float32)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    monkeypatch.setattr(native, "library", lambda: None)
    assert plan_base(base, "cpu", int8=False) == BasePlan(2 * size, torch.float32)
    monkeypatch.setattr(native, "library", lambda: ctypes.CDLL(None))
    plan = plan_base(base, "cpu", int8=False)
    shapes = weight_shapes(TINY)
    num = sum(math.prod(shape) for shape in shapes.values())
    num_bytes = 2 * num + 4 * math.prod(shapes[EMBEDDING])
    assert plan == BasePlan(num_bytes, None, in_fp32=True)
    assert plan_base(base, "cpu", int8=True).int8


def test_a_replaced_file_changes_the_signature(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base")
    before = signature(base)
    assert signature(base) == before
    os.utime(base / "model.safetensors", ns=(1, 1))
    assert signature(base) != before
    with pytest.raises(BaseModelError):
        signature(tmp_path / "none")


def test_a_path_that_cannot_be_one_is_no_base() -> None:
    with pytest.raises(BaseModelError):
        signature(Path("a\0b"))


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_served_as_it_was_trained_or_not_at_all(dora: bool, tmp_path: Path) -> None:
    model = load_model(write_tiny_base(tmp_path / "base"))
    adapter = Adapter.create(model.linears, LoraSpec(2, 2, dora=dora), 0, model.weights)
    for parameter in adapter.parameters():
        parameter.add_(0.1)
    (tmp_path / "adapter").mkdir()
    sha256 = adapter.save(tmp_path / "adapter", "base")
    ref = AdapterRef(sha256, tmp_path / "adapter")
    ids_BT = torch.arange(12)[None]
    served = model.hidden(ids_BT, lora=load_adapter(ref, model))
    torch.testing.assert_close(served, model.hidden(ids_BT, lora=adapter), rtol=0, atol=1e-5)
    (tmp_path / "adapter" / CONFIG).write_text("{}")
    with pytest.raises(AdapterError, match="are not the adapter"):
        load_adapter(ref, model)


def test_a_whole_model_is_served_as_it_was_trained_or_not_at_all(tmp_path: Path) -> None:
    sha256 = write_listing(write_tiny_base(tmp_path / "new"))
    base = (tmp_path / "new").rename(tmp_path / sha256)
    load_base(base, "cpu", BasePlan(0, None))
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(BaseModelError, match="has another size"):
        load_base(base, "cpu", BasePlan(0, None))
    (base / "model.safetensors").write_bytes(weights)
    (base / "files.json").write_text("{}")
    with pytest.raises(BaseModelError, match="not the one that names it"):
        load_base(base, "cpu", BasePlan(0, None))


def test_a_base_in_four_bits_is_planned_as_it_will_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.model.precision.bf16_speedup", lambda *_: 0.0)
    write_nf4(embedded_directory(), tmp_path / "nf4")
    plan = plan_base(tmp_path / "nf4", "cpu", int8=True)
    assert plan.dtype is torch.float32
    assert not plan.int8
    assert plan.num_bytes < plan_base(embedded_directory(), "cpu", int8=False).num_bytes / 2
    assert plan.num_bytes == load_base(tmp_path / "nf4", "cpu", plan).num_bytes


def test_a_base_in_eight_bits_is_planned_as_it_will_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "WORTHWHILE_INT8", 0)
    base = write_tiny_base(tmp_path / "base")
    plan = plan_base(base, "cpu", int8=True)
    assert plan.int8
    model = load_base(base, "cpu", plan)
    assert isinstance(model, FrozenDecoder)
    assert (model.products, model.dtype) == ("int8", torch.float32)
    # Beside the weights: a scale for each output, and norms in fp32.
    assert plan.num_bytes < model.num_bytes < 1.1 * plan.num_bytes
    assert not plan_base(base, "cuda", int8=True).int8
