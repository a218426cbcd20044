"""Adapters: exact bytes, strict loading, PEFT's reading of them, gradients, mixed batches."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_transformers import build
from tunesmith.errors import AdapterError, JobError
from tunesmith.model.adapter_files import CONFIG, WEIGHTS, content_hash, continued, targeted
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter, AdapterBatch, LoraSpec
from tunesmith.model.merge import merged

Saved = Callable[[str], tuple[Path, Any]]
SPEC = LoraSpec(rank=4, alpha=8)
LINEARS = {"model.layers.0.mlp.up_proj": (12, 8), "model.layers.1.mlp.up_proj": (12, 8)}


def trained(
    linears: dict[str, tuple[int, int]],
    seed: int,
    spec: LoraSpec = SPEC,
    weights: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """An adapter as training leaves it: B no longer zero."""
    adapter = Adapter.create(linears, spec, seed, weights)
    generator = torch.Generator().manual_seed(seed + 1000)
    for b in adapter.b.values():
        b.normal_(0, 0.1, generator=generator)
    for magnitude in adapter.magnitude.values():
        magnitude.mul_(1 + 0.2 * torch.rand(magnitude.shape, generator=generator))
    return adapter


def test_a_fresh_adapter_changes_nothing_and_is_a_function_of_its_seed() -> None:
    one, same, other = (Adapter.create(LINEARS, SPEC, seed) for seed in (1, 1, 2))
    name = "model.layers.0.mlp.up_proj"
    assert torch.equal(one.delta(name, torch.randn(2, 3, 8)), torch.zeros(2, 3, 12))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.a[name], other.a[name])
    assert not torch.equal(one.a[name], one.a["model.layers.1.mlp.up_proj"])
    bound = 8**-0.5
    assert one.a[name].abs().max() <= bound
    assert one.delta("lm_head", torch.randn(1, 8)) is None


def test_delta_is_scaled_b_a_x_in_the_type_of_x() -> None:
    adapter, name = trained(LINEARS, 0), "model.layers.0.mlp.up_proj"
    x = torch.randn(2, 3, 8)
    expected = x @ adapter.a[name].T @ adapter.b[name].T * 2.0
    torch.testing.assert_close(adapter.delta(name, x), expected, rtol=1e-6, atol=1e-6)
    half = adapter.delta(name, x.bfloat16())
    assert half is not None
    assert half.dtype == torch.bfloat16
    served = adapter.to(torch.bfloat16)
    assert served.a[name].dtype == torch.bfloat16
    assert torch.equal(served.delta(name, x.bfloat16()), half)


def test_dropout_only_while_training() -> None:
    adapter = trained(LINEARS, 0, LoraSpec(4, 8, dropout=0.5))
    name, x = "model.layers.0.mlp.up_proj", torch.randn(4, 8)
    plain = adapter.delta(name, x)
    assert torch.equal(plain, adapter.delta(name, x))
    torch.manual_seed(0)
    first = adapter.train().delta(name, x)
    torch.manual_seed(0)
    assert torch.equal(first, adapter.delta(name, x))
    assert not torch.equal(first, plain)
    assert not adapter.to(torch.float32).training


def test_saved_bytes_are_a_function_of_the_adapter(tmp_path: Path) -> None:
    hashes = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        hashes.append(trained(LINEARS, 3).save(tmp_path / folder, "base"))
    assert hashes[0] == hashes[1] == content_hash(tmp_path / "one")
    again = Adapter.load(tmp_path / "one", LINEARS)
    (tmp_path / "three").mkdir()
    assert again.save(tmp_path / "three", "base") == hashes[0]
    (tmp_path / "four").mkdir()
    assert trained(LINEARS, 4).save(tmp_path / "four", "base") != hashes[0]


def test_loading_leaves_nothing_behind(tmp_path: Path) -> None:
    linears = {f"layer.{number}": (8, 8) for number in range(20)}
    Adapter.create(linears, LoraSpec(2, 4.0), seed=0).save(tmp_path, "base")
    num_blocks = []
    for _ in range(3):
        for _ in range(20):
            Adapter.load(tmp_path, linears, untrained_ok=True)
        gc.collect()
        num_blocks.append(sys.getallocatedblocks())
    assert num_blocks[2] - num_blocks[1] < 20 * len(linears)


def test_loaded_adapters_do_not_share_memory_with_the_file(tmp_path: Path) -> None:
    trained(LINEARS, 3).save(tmp_path, "base")
    adapter = Adapter.load(tmp_path, LINEARS)
    before = [parameter.clone() for parameter in adapter.parameters()]
    (tmp_path / WEIGHTS).write_bytes(b"")
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), before, strict=True))


VARIANTS = [
    LoraSpec(rank=3, alpha=7.5),
    LoraSpec(rank=4, alpha=8, rslora=True),
    LoraSpec(rank=3, alpha=6, dora=True),
    LoraSpec(rank=4, alpha=6, rslora=True, dora=True),
]


def shape_name(spec: LoraSpec) -> str:
    return "-".join(["lora", *(["rs"] * spec.rslora), *(["dora"] * spec.dora)])


# Qwen2 has biases, which DoRA must leave as they are.
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("spec", VARIANTS, ids=shape_name)
def test_peft_reads_our_adapter_the_same(
    kind: str, spec: LoraSpec, saved: Saved, tmp_path: Path, ids_BT: Tensor
) -> None:
    import peft

    model = load_model(saved(kind)[0])
    adapter = trained(model.linears, 5, spec, model.weights)
    adapter.save(tmp_path, kind)
    theirs = peft.PeftModel.from_pretrained(build(kind), tmp_path)
    with torch.no_grad():
        expected = theirs(ids_BT).logits
        found = model.logits(model.hidden(ids_BT, lora=adapter))
        plain = model.logits(model.hidden(ids_BT))
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
    assert (found - plain).abs().max() > 0.05 * scale


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_we_read_pefts_adapter_the_same(
    rank_stabilised: bool, dora: bool, saved: Saved, tmp_path: Path, ids_BT: Tensor
) -> None:
    import peft

    config = peft.LoraConfig(
        r=4,
        lora_alpha=16,
        target_modules=["q_proj", "down_proj"],
        task_type="CAUSAL_LM",
        use_rslora=rank_stabilised,
        use_dora=dora,
    )
    theirs = peft.get_peft_model(build("mistral"), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
            if "magnitude" in name:
                parameter.mul_(1.3)
        theirs.save_pretrained(tmp_path)
        expected = theirs.eval()(ids_BT).logits
    model = load_model(saved("mistral")[0])
    adapter = Adapter.load(tmp_path, model.linears, weights=model.weights)
    assert len(adapter.a) == 6
    assert (adapter.spec.rslora, adapter.spec.dora) == (rank_stabilised, dora)
    atol = 1e-5 * float(expected.abs().max())
    for each in (adapter, adapter.to(torch.float32)):
        found = model.logits(model.hidden(ids_BT, lora=each))
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_a_fresh_dora_adapter_changes_nothing(saved: Saved, ids_BT: Tensor) -> None:
    model = load_model(saved("qwen2")[0])
    adapter = Adapter.create(model.linears, LoraSpec(4, 8, dora=True), 0, model.weights)
    assert all(bool((adapter.gain(name) == 1).all()) for name in adapter.a)
    plain, adapted = model.hidden(ids_BT), model.hidden(ids_BT, lora=adapter)
    torch.testing.assert_close(adapted, plain, rtol=0, atol=1e-5)


def test_dora_leaves_rows_of_zeros_alone(saved: Saved, ids_BT: Tensor) -> None:
    """As in bases that were grown by layers that add nothing yet: their length is no divisor."""
    model = load_model(saved("qwen2")[0], dtype=torch.float32)
    name = next(name for name in model.linears if name.endswith("o_proj"))
    model.weights[f"{name}.weight"][:2] = 0
    adapter = Adapter.create(model.linears, LoraSpec(4, 8, dora=True), 0, model.weights).train()
    logits = model.logits(model.hidden(ids_BT, lora=adapter))
    logits.square().sum().backward()
    assert all(bool(each.grad.isfinite().all()) for each in adapter.parameters())
    assert bool(merged(adapter, name, model.weights[f"{name}.weight"]).isfinite().all())


@pytest.mark.parametrize(("spec", "sides"), [(SPEC, 2), (LoraSpec(4, 8, dora=True), 3)])
def test_training_moves_every_matrix_and_only_them(
    spec: LoraSpec, sides: int, saved: Saved, ids_BT: Tensor
) -> None:
    model = load_model(saved("qwen3")[0])
    adapter = Adapter.create(model.linears, spec, 0, model.weights).train()
    parameters = adapter.parameters()
    assert len(parameters) == sides * 7 * 3
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    start = [parameter.detach().clone() for parameter in parameters]
    losses = []
    for _ in range(3):
        logits = model.logits(model.hidden(ids_BT[:, :-1], lora=adapter))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids_BT[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[1] < losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(parameters, start, strict=True))


@pytest.mark.parametrize("spec", VARIANTS, ids=shape_name)
def test_gradients_equal_pefts(
    spec: LoraSpec, saved: Saved, tmp_path: Path, ids_BT: Tensor
) -> None:
    import peft

    model = load_model(saved("qwen2")[0])
    adapter = trained(model.linears, 6, spec, model.weights)
    adapter.save(tmp_path, "llama")
    theirs = peft.PeftModel.from_pretrained(build("qwen2"), tmp_path, is_trainable=True)
    theirs(ids_BT).logits.logsumexp(-1).sum().backward()
    model.logits(model.hidden(ids_BT, lora=adapter.train())).logsumexp(-1).sum().backward()
    expected = dict(theirs.named_parameters())
    sides = (
        ("lora_A", adapter.a),
        ("lora_B", adapter.b),
        ("lora_magnitude_vector", adapter.magnitude),
    )
    for side, matrices in sides:
        for name, matrix in matrices.items():
            grad = expected[f"base_model.model.{name}.{side}.default.weight"].grad
            atol = 1e-4 * float(grad.abs().max())
            torch.testing.assert_close(matrix.grad, grad, rtol=1e-3, atol=atol)


Change = Callable[[dict[str, Tensor], dict[str, Any]], None]
FIRST = "base_model.model.model.layers.0.mlp.up_proj.lora_"


def drop_side(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    del tensors[f"{FIRST}B.weight"]


def rename(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    for side in "AB":
        key = f"{FIRST}{side}.weight"
        tensors[key.replace("layers.0", "layers.9")] = tensors.pop(key)


def reshape(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    tensors[f"{FIRST}A.weight"] = torch.zeros(4, 9)


def poison(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    tensors[f"{FIRST}B.weight"][0, 0] = float("nan")


def blank(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    for key, tensor in tensors.items():
        if "lora_B" in key:
            tensor.zero_()


def empty(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    tensors.clear()


def dora(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["use_dora"] = True


def transposed_dora(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config |= {"use_dora": True, "fan_in_fan_out": True}


def biased(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["bias"] = "all"


def pissa(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["init_lora_weights"] = "pissa"


def other_rank(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["r"] = 8


def no_rank(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["r"] = "many"


def zero_rank(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["r"] = 0


def another_kind(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["peft_type"] = "IA3"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop_side, "lora_B"),
        (rename, "layers.9"),
        (reshape, "shape"),
        (poison, "not finite"),
        (blank, "changes nothing"),
        (empty, "no LoRA matrices"),
        (dora, "lacks .*lora_magnitude_vector"),
        (transposed_dora, "DoRA on transposed"),
        (biased, "changes weights of the base"),
        (pissa, "changes weights of the base"),
        (other_rank, "shape"),
        (no_rank, "must be numbers"),
        (zero_rank, "out of range"),
        (another_kind, "IA3"),
    ],
)
def test_loading_is_strict(change: Change, says: str, tmp_path: Path) -> None:
    trained(LINEARS, 1).save(tmp_path, "base")
    tensors = {key: tensor.clone() for key, tensor in load_file(tmp_path / WEIGHTS).items()}
    config = json.loads((tmp_path / CONFIG).read_text())
    change(tensors, config)
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=says):
        Adapter.load(tmp_path, LINEARS)


def test_damaged_files_are_adapter_errors(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=CONFIG):
        Adapter.load(tmp_path, LINEARS)
    trained(LINEARS, 1).save(tmp_path, "base")
    whole = (tmp_path / WEIGHTS).read_bytes()
    for content in (b"", whole[:20], whole[:-8], b"\xff" * 64):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(AdapterError, match="cannot be read"):
            Adapter.load(tmp_path, LINEARS)


def test_an_untrained_adapter_can_be_resumed(tmp_path: Path) -> None:
    Adapter.create(LINEARS, SPEC, 0).save(tmp_path, "base")
    assert Adapter.load(tmp_path, LINEARS, untrained_ok=True).spec == SPEC


@pytest.mark.parametrize("dora", [False, True])
def test_rows_of_a_mixed_batch_answer_as_if_alone(dora: bool, saved: Saved) -> None:
    model = load_model(saved("qwen2")[0])
    one, two = trained(model.linears, 1), trained(model.linears, 2, LoraSpec(rank=2, alpha=2))
    three = trained(model.linears, 3, LoraSpec(rank=2, alpha=2, dora=True), model.weights)
    rows = [one, None, two, three.to(torch.float32), None, two] if dora else [one, None, two, one]
    ids_BT = torch.randint(3, 97, (len(rows), 12), generator=torch.Generator().manual_seed(2))
    together = model.hidden(ids_BT, lora=AdapterBatch.of(rows))
    for row, adapter in enumerate(rows):
        alone = model.hidden(ids_BT[row : row + 1], lora=adapter)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_batch_of_the_base_alone_is_none() -> None:
    assert AdapterBatch.of([None, None]) is None


ADAPTERS = [None, *(trained(LINEARS, seed) for seed in range(3))]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(range(4)), min_size=1, max_size=7))
def test_any_mix_of_rows_gets_its_own_update(choice: list[int]) -> None:
    name = "model.layers.1.mlp.up_proj"
    rows = [ADAPTERS[index] for index in choice]
    x = torch.randn(len(rows), 2, 8)
    batch = AdapterBatch.of(rows)
    found = None if batch is None else batch.delta(name, x)
    found = torch.zeros(len(rows), 2, 12) if found is None else found
    for row, adapter in enumerate(rows):
        expected = None if adapter is None else adapter.delta(name, x[row])
        expected = torch.zeros(2, 12) if expected is None else expected
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)


def test_mixed_batches_skip_linears_no_adapter_has() -> None:
    batch = AdapterBatch.of([ADAPTERS[1], None, ADAPTERS[2]])
    assert batch is not None
    assert batch.delta("lm_head", torch.randn(3, 2, 8)) is None


def test_dora_needs_the_weights_it_stretches(saved: Saved, tmp_path: Path) -> None:
    model = load_model(saved("llama")[0])
    trained(model.linears, 1, LoraSpec(2, 2, dora=True), model.weights).save(tmp_path, "llama")
    with pytest.raises(AdapterError, match="without the weights"):
        Adapter.load(tmp_path, model.linears)


def test_an_adapter_that_is_continued_keeps_its_shape(tmp_path: Path) -> None:
    trained(LINEARS, 1, LoraSpec(4, 8, rslora=True)).save(tmp_path, "base")
    asked = {"n_epochs": 2, "lora_rank": "auto", "lora_rslora": True, "lora_targets": ["up_proj"]}
    assert continued(asked, tmp_path) == {
        "n_epochs": 2,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_alpha": 8,
        "lora_rslora": True,
        "lora_targets": ["up_proj"],
    }
    for name, value in {
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_rslora": False,
        "finetuning_type": "dora",
        "lora_targets": ["q_proj"],
    }.items():
        with pytest.raises(JobError, match=f"another adapter. Leave {name} out") as caught:
            continued({name: value}, tmp_path)
        assert caught.value.param == f"hyperparameters.{name}"


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_head_is_never_adapted(kind: str, saved: Saved) -> None:
    """Whether it is the embedding or not: other engines refuse such adapters."""
    linears = load_model(saved(kind)[0]).linears
    assert all(".layers." in name for name in linears)
    assert targeted(linears, "all") == [*linears]
    assert {*targeted(linears, "attention"), *targeted(linears, "mlp")} == set(linears)
    assert len(targeted(linears, ["q_proj"])) * 7 == len(linears)
