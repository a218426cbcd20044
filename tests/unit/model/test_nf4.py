"""NF4: its levels and files are those of bitsandbytes, and what is read back is one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_transformers import build
from tunesmith.bases import describe, embedded_directory
from tunesmith.errors import BaseModelError
from tunesmith.ids import SystemClock
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.merge import MergedWeights, merge
from tunesmith.model.nf4 import LEVELS, Nf4Decoder, quantise
from tunesmith.model.nf4_files import ABSMAX, STATE
from tunesmith.model.nf4_write import write_nf4
from tunesmith.model.weights import SINGLE

# As bitsandbytes 0.50.2 packs the 128 numbers of `sample()`, two to a byte, with their scales.
PACKED = (
    "0123456789abcdef2233344445556667788899aaabbbccccddddeeeeeeefffff"
    "fffffeeeeeeeddddccccbbbaaa9988877666555444433322fedcba9876543210"
)
SCALES = [1.0, 3.0]


def sample() -> Tensor:
    """All levels and numbers between them, once as they are and once three times as large."""
    levels = torch.tensor(LEVELS)
    steps = torch.linspace(-1, 1, 64)
    steps[:16] = levels
    return torch.stack((steps, 3 * steps.flip(0)))


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nf4") / "nano"
    write_nf4(embedded_directory(), directory)
    return directory


@pytest.fixture(scope="module")
def model(nano: Path) -> CausalModel:
    return load_model(nano, dtype=torch.float32)


def log_probs(model: CausalModel, ids_BT: Tensor, lora: Adapter | None = None) -> Tensor:
    with torch.no_grad():
        return model.logits(model.hidden(ids_BT, lora=lora)).log_softmax(-1)


def trained(model: CausalModel, *, dora: bool = False) -> Adapter:
    """An adapter whose update is not zero."""
    adapter = Adapter.create(model.linears, LoraSpec(4, 8.0, 0.0, False, dora), 1, model.weights)
    generator = torch.Generator().manual_seed(2)
    for name, matrix in adapter.b.items():
        adapter.b[name] = torch.randn(matrix.shape, generator=generator) * 0.05
    return adapter


def test_bytes_and_values_are_those_of_bitsandbytes() -> None:
    found = quantise(sample())
    assert bytes(found.packed.flatten().tolist()).hex() == PACKED
    assert found.absmax.tolist() == SCALES
    assert torch.equal(found.read(torch.float32)[0, :16], torch.tensor(LEVELS))


def test_what_is_a_level_already_is_not_changed() -> None:
    once = quantise(torch.randn(32, 64, generator=torch.Generator().manual_seed(0)))
    again = quantise(once.read(torch.float32))
    assert torch.equal(again.packed, once.packed)
    assert torch.equal(again.absmax, once.absmax)
    assert not quantise(torch.zeros(2, 64)).read(torch.float32).any()


def test_a_weight_is_off_by_half_a_step_at_most() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor(LEVELS)
    half_step = (levels[1:] - levels[:-1]).max() / 2
    blocks = weight.view(-1, 64)
    error = (quantise(weight).read(torch.float32).view(-1, 64) - blocks).abs()
    assert bool((error <= half_step * blocks.abs().amax(1, keepdim=True) * (1 + 1e-6)).all())


def test_it_takes_less_than_a_third_and_computes_nearly_the_same(model: CausalModel) -> None:
    assert isinstance(model, Nf4Decoder)
    plain = load_model(embedded_directory(), dtype=torch.float32)
    num_elements = sum(outputs * inputs for outputs, inputs in plain.linears.values())
    num_others = plain.num_bytes - 4 * num_elements
    assert model.num_bytes - num_others < 0.3 * 2 * num_elements
    text = torch.tensor([[1, *range(40, 90)]])
    expected, found = log_probs(plain, text), log_probs(model, text)
    divergence = (expected.exp() * (expected - found)).sum(-1).mean()
    # Measured: 0.10 nats on ids in no order, 0.04 on a text.
    assert 0.001 < divergence < 0.15


def test_gradients_are_those_of_the_weights_read_back(model: CausalModel) -> None:
    assert isinstance(model, Nf4Decoder)
    from tunesmith.model.decoder import Decoder

    ids_BT = torch.tensor([[1, 50, 60, 70]])
    gradients = []
    for each in (model, Decoder(model.config, dict(model.weights))):
        adapter = trained(model).train()
        each.logits(each.hidden(ids_BT, lora=adapter)).square().mean().backward()
        gradients.append([parameter.grad for parameter in adapter.parameters()])
    for found, expected in zip(*gradients, strict=True):
        assert found is not None and expected is not None
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_backward_pass_keeps_no_matrix(model: CausalModel) -> None:
    matrices = {model.weights[f"{name}.weight"].shape for name in model.linears}
    kept: list[torch.Size] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    adapter = trained(model).train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden(torch.tensor([[1, 50, 60]]), lora=adapter)
    assert kept
    assert not matrices & set(kept)


@pytest.mark.parametrize("dora", [False, True])
def test_a_merge_is_onto_what_was_trained_against(
    nano: Path, model: CausalModel, dora: bool
) -> None:
    adapter, ids_BT = trained(model, dora=dora), torch.tensor([[1, *range(40, 60)]])
    beside = log_probs(model, ids_BT, adapter)
    together = log_probs(merge(model, adapter), ids_BT)
    torch.testing.assert_close(together, beside, rtol=0, atol=1e-3)
    files = MergedWeights(nano, adapter)
    name = "model.layers.0.mlp.up_proj.weight"
    expected = model.weights[name] + adapter.spec.scale * (
        adapter.b[name.removesuffix(".weight")] @ adapter.a[name.removesuffix(".weight")]
    )
    if not dora:
        assert torch.equal(files.get(name, torch.float32), expected)
    assert files.tensors[name].dtype == torch.bfloat16
    assert set(files.tensors) == set(model.weights)


def test_it_is_a_base_of_its_own(nano: Path) -> None:
    found, full = (describe(each, "x", SystemClock()) for each in (nano, embedded_directory()))
    assert found.num_parameters == full.num_parameters
    assert found.fingerprint != full.fingerprint
    assert not found.slow


def test_the_same_base_gives_the_same_bytes(nano: Path, tmp_path: Path) -> None:
    write_nf4(embedded_directory(), tmp_path / "again")
    assert (tmp_path / "again" / SINGLE).read_bytes() == (nano / SINGLE).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_fused_linears_have_it_too(tmp_path: Path) -> None:
    build("phi3").save_pretrained(tmp_path / "full")
    write_nf4(tmp_path / "full", tmp_path / "nf4")
    assert isinstance(load_model(tmp_path / "nf4", dtype=torch.float32), Nf4Decoder)


def test_what_has_no_such_form_is_refused(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="in NF4 already"):
        write_nf4(nano, tmp_path / "twice")
    build("gpt-neox").save_pretrained(tmp_path / "other")
    with pytest.raises(BaseModelError, match="needs a family with a decoder"):
        write_nf4(tmp_path / "other", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def damaged(nano: Path, target: Path, change: Any) -> Path:
    target.mkdir()
    tensors = load_file(nano / SINGLE)
    change(tensors)
    save_file(tensors, target / SINGLE)
    (target / "config.json").write_bytes((nano / "config.json").read_bytes())
    return target


def test_parts_that_do_not_belong_together_are_refused(nano: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"

    def lose_scales(tensors: dict[str, Tensor]) -> None:
        del tensors[name + ABSMAX]

    def cut(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name][:-1].clone()

    def lose_state(tensors: dict[str, Tensor]) -> None:
        del tensors[name + STATE]

    def nest(tensors: dict[str, Tensor]) -> None:
        state = json.loads(bytes(tensors[name + STATE].tolist()))
        content = json.dumps(state | {"nested_blocksize": 256}).encode()
        tensors[name + STATE] = torch.tensor(list(content), dtype=torch.uint8)

    for number, (change, said) in enumerate(
        (
            (lose_scales, "do not belong together"),
            (cut, "do not belong together"),
            (lose_state, "has shape"),
            (nest, "quantised in another way"),
        )
    ):
        with pytest.raises(BaseModelError, match=said):
            load_model(damaged(nano, tmp_path / str(number), change))
