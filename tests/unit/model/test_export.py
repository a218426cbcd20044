"""Export: merged weights, Hugging Face directories, GGUF files, and the comparison of them all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.families import write_family
from tests.tiny_base import write_tiny_base
from tests.tiny_transformers import build
from tunesmith.data.formats import ChatRow
from tunesmith.data.render import Renderer
from tunesmith.errors import AdapterError, BaseModelError, ExportError
from tunesmith.model import directory as directories
from tunesmith.model import export as exporting
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.directory import TensorPlan, portable_config, write_weights
from tunesmith.model.export import COMPARISON, Tuned, export
from tunesmith.model.gguf_vocab import BYTE, CONTROL, UNUSED, USER_DEFINED, read_vocabulary
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.merge import MergedWeights, merge
from tunesmith.model.probe import check_base

SPECS = {
    "lora": LoraSpec(4, 8.0),
    "rslora": LoraSpec(4, 8.0, rslora=True),
    "dora": LoraSpec(4, 8.0, dora=True),
}
TEXTS = ("What is the weather in Oslo?", "  two  spaces\n\n12345", "caf\u00e9 \u65e5\u672c")


def trained(base: Path, spec: LoraSpec) -> Adapter:
    """An adapter that changes every linear."""
    model = load_model(base)
    adapter = Adapter.create(model.linears, spec, 0, model.weights)
    generator = torch.Generator().manual_seed(1)
    for matrix in adapter.b.values():
        matrix.normal_(0, 0.05, generator=generator)
    for magnitude in adapter.magnitude.values():
        magnitude *= 1 + 0.1 * torch.rand(magnitude.shape, generator=generator)
    return adapter


def tuned(base: Path, where: Path, spec: LoraSpec | None = SPECS["lora"]) -> Tuned:
    """A model to export, with rows in the base's own form."""
    directory = None
    if spec is not None:
        directory = where / "adapter"
        directory.mkdir(parents=True)
        trained(base, spec).save(directory, "base")
    renderer = Renderer.load(base)
    rows = [
        renderer.examples(ChatRow(number, number, messages(text)))[0]
        for number, text in enumerate(TEXTS, 1)
    ]
    return Tuned("ft:base:personal::abcdefgh", base, directory, rows, "rows of a test", TEXTS)


def messages(text: str) -> list[dict[str, Any]]:
    answer = {"role": "assistant", "content": f"It will rain, {text}"}
    return [{"role": "user", "content": text}, answer]


def family_base(kind: str, family: str, where: Path, **config: Any) -> Path:
    """A random model of transformers with a tokenizer and template of its family's kind."""
    write_family(family, where)
    num_ids = Renderer.load(where).vocab_size
    build(kind, vocab_size=-(-num_ids // 32) * 32 + 32, **config).save_pretrained(where)
    return write_family(family, where)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny_base(tmp_path / "base")


@pytest.mark.parametrize("kind", SPECS)
def test_merged_gives_the_adapters_logits(kind: str, base: Path) -> None:
    model, adapter = load_model(base), trained(base, SPECS[kind])
    ids_BT = torch.randint(10, 500, (2, 40), generator=torch.Generator().manual_seed(0))
    expected = model.logits(model.hidden(ids_BT, lora=adapter))
    plain = model.logits(model.hidden(ids_BT))
    both = merge(load_model(base), adapter)
    found = both.logits(both.hidden(ids_BT))
    scale = float(expected.abs().max())
    assert float((found - expected).abs().mean()) < 1e-6 * scale
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6 * scale)
    assert float((plain - expected).abs().max()) > 1e-2 * scale


def test_merging_rounds_once_and_leaves_the_rest_alone(base: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow"
    shutil.copytree(base, narrow)
    weights = {name: x.bfloat16() for name, x in load_file(base / "model.safetensors").items()}
    save(weights, narrow / "model.safetensors")
    adapter = trained(base, SPECS["lora"])
    merged = MergedWeights(narrow, adapter)
    for name, weight in weights.items():
        found, linear = merged.get(name), name.removesuffix(".weight")
        assert found.dtype == torch.bfloat16
        if linear in adapter.a:
            update = adapter.spec.scale * adapter.b[linear] @ adapter.a[linear]
            assert torch.equal(found, (weight.float() + update).bfloat16())
        else:
            assert torch.equal(found, weight)


def save(weights: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(weights, path, metadata={"format": "pt"})


def test_transposed_weights_and_prefixes_of_other_families(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): x for name, x in weights.items()}
    save(bare, tmp_path / "model.safetensors")
    model = load_model(tmp_path)
    adapter = trained(tmp_path, SPECS["lora"])
    merged = MergedWeights(tmp_path, adapter, transposed=True)
    ids_BT = torch.arange(10)[None]
    with torch.no_grad():
        expected = model.logits(model.hidden(ids_BT, lora=adapter))
        save({name: merged.get(name) for name in merged.tensors}, tmp_path / "model.safetensors")
        written = load_model(tmp_path)
        found = written.logits(written.hidden(ids_BT))
        in_place = merge(model, adapter)
        assert torch.allclose(in_place.logits(in_place.hidden(ids_BT)), expected, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_linear_that_the_files_lack_is_an_error(base: Path) -> None:
    adapter = trained(base, SPECS["lora"])
    adapter.a["model.layers.9.mlp.up_proj"] = adapter.a["model.layers.0.mlp.up_proj"]
    with pytest.raises(AdapterError, match=r"layers\.9\.mlp\.up_proj"):
        MergedWeights(base, adapter)


@pytest.mark.parametrize("spec", [*SPECS, None])
def test_a_merged_directory_is_read_by_transformers_and_by_us(
    spec: str | None, base: Path, tmp_path: Path
) -> None:
    import transformers

    model = tuned(base, tmp_path, SPECS[spec] if spec else None)
    out = tmp_path / "out"
    comparison = export(model, "merged", out)
    assert comparison.exported is not None
    assert comparison.exported.largest < 1e-4
    assert json.loads((out / COMPARISON).read_text())["num_rows"] == 3
    assert check_base(out, "again").ok
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = tokenizer.apply_chat_template(messages("a")[:1], add_generation_prompt=True)
    ids = ids if isinstance(ids, list) else ids["input_ids"]
    renderer = Renderer.load(base)
    assert ids == renderer.prompt(messages("a")[:1])
    ours = load_model(out)
    ids_BT = torch.tensor([ids])
    with torch.no_grad():
        expected = loaded(ids_BT).logits
        torch.testing.assert_close(ours.logits(ours.hidden(ids_BT)), expected, rtol=0, atol=1e-3)
    assert set(loaded.generation_config.eos_token_id) >= renderer.stop_ids
    # Where transformers before 4.49 looks for it.
    older = json.loads((out / "tokenizer_config.json").read_text())
    assert older["chat_template"] == (base / "chat_template.jinja").read_text()
    with pytest.raises(ExportError, match="exists already"):
        export(model, "merged", out)


def test_an_adapter_is_exported_as_it_is(base: Path, tmp_path: Path) -> None:
    model = tuned(base, tmp_path)
    assert model.adapter is not None
    comparison = export(model, "adapter", tmp_path / "out")
    assert comparison.exported is not None
    assert comparison.exported.largest == 0
    for path in model.adapter.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ExportError, match="has no adapter"):
        export(replace(model, adapter=None), "adapter", tmp_path / "other")


def test_dora_is_compared_in_the_type_of_the_comparison(base: Path, tmp_path: Path) -> None:
    """On a base stored in bf16: lengths measured in bf16 would pass for a loss on the way."""
    weights = load_file(base / "model.safetensors")
    save({name: x.bfloat16() for name, x in weights.items()}, base / "model.safetensors")
    comparison = export(tuned(base, tmp_path, SPECS["dora"]), "adapter", tmp_path / "out")
    assert comparison.exported is not None and comparison.merged is not None
    assert comparison.exported.largest == 0
    assert comparison.merged.largest < 2e-5


def test_an_export_that_differs_is_refused_and_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MergedWeights.get

    def lossy(self: MergedWeights, name: str, dtype: torch.dtype | None = None) -> Tensor:
        tensor = original(self, name, dtype)
        return tensor * 1.05 if "layers.1.self_attn.v_proj" in name else tensor

    monkeypatch.setattr(MergedWeights, "get", lossy)
    with pytest.raises(ExportError, match="not the one that was trained") as caught:
        export(tuned(base, tmp_path), "merged", tmp_path / "out")
    assert "Nothing was written" in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_large_models_are_written_in_shards(base: Path, tmp_path: Path) -> None:
    weights = load_file(base / "model.safetensors")
    plans = {name: TensorPlan(x.nbytes, x.clone) for name, x in weights.items()}
    out = tmp_path / "out"
    shutil.copytree(base, out)
    (out / "model.safetensors").unlink()
    write_weights(out, plans, max_shard_bytes=100_000)
    assert len(list(out.glob("model-*.safetensors"))) > 2
    assert all(path.stat().st_size < 140_000 for path in out.glob("model-*.safetensors"))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in weights.values())
    found = load_model(out)
    assert all(torch.equal(found.weights[name], x) for name, x in weights.items())


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
OLD_GEMMA3 = {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 1e4}
NEW_GEMMA3 = {
    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


@pytest.mark.parametrize(
    "old, new",
    [
        ({"rope_theta": 5e5}, {"rope_type": "default", "rope_theta": 5e5}),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, {**LLAMA3, "rope_theta": 5e5}),
        (
            {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
            {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
        ),
        (OLD_GEMMA3, NEW_GEMMA3),
    ],
)
def test_both_generations_of_transformers_find_their_names(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    from transformers import AutoConfig

    start = {"model_type": "llama", "max_position_embeddings": 64, **old}
    from_old = portable_config(start, "bfloat16")
    from_new = portable_config(
        {"model_type": start["model_type"], "max_position_embeddings": 64, "rope_parameters": new},
        "bfloat16",
    )
    for config in (from_old, from_new):
        assert config["torch_dtype"] == config["dtype"] == "bfloat16"
        assert config["rope_parameters"] == new
        # What transformers 4 reads.
        assert config["rope_theta"] == old["rope_theta"]
        assert config.get("rope_local_base_freq") == old.get("rope_local_base_freq")
        scaling = config.get("rope_scaling") or {}
        wanted = old.get("rope_scaling") or {}
        kind = wanted.get("rope_type") or wanted.get("type")
        assert scaling.get("rope_type", scaling.get("type")) == kind
        assert scaling.get("factor") == wanted.get("factor")
        # What transformers 5 makes of both together.
        kind = config.pop("model_type")
        parsed = AutoConfig.for_model(kind, **config).rope_parameters
        for name, value in new.items():
            assert parsed[name] == value
        config["model_type"] = kind


def tensors_of(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {tensor.name: tensor for tensor in reader.tensors}


def field(path: Path, name: str) -> Any:
    return gguf.GGUFReader(path).get_field(name).contents()


def undo_rotation_order(weight: np.ndarray[Any, Any], num_heads: int) -> np.ndarray[Any, Any]:
    """From llama.cpp's order of rows back to Hugging Face's."""
    pairs = weight.reshape(num_heads, -1, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_gguf_holds_the_merged_weights_in_llama_cpps_form(
    kind: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "has_llama_cpp", lambda: False)
    comparison = export(tuned(base, tmp_path), "gguf", tmp_path / "out", gguf_type=kind)
    assert comparison.exported is None
    assert "not verified" in comparison.note
    path = tmp_path / "out" / f"model-{kind}.gguf"
    tensors = tensors_of(path)
    merged = MergedWeights(base, trained(base, SPECS["lora"]))
    tolerance = {"f32": 0.0, "f16": 1e-3, "bf16": 1e-2, "q8_0": 2e-2}[kind]
    for ours, theirs, num_heads in (
        ("model.layers.1.self_attn.q_proj", "blk.1.attn_q", 4),
        ("model.layers.1.self_attn.k_proj", "blk.1.attn_k", 2),
        ("model.layers.0.mlp.down_proj", "blk.0.ffn_down", None),
        ("model.embed_tokens", "token_embd", None),
        ("model.norm", "output_norm", None),
    ):
        tensor = tensors[f"{theirs}.weight"]
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found = found if num_heads is None else undo_rotation_order(found, num_heads)
        expected = merged.get(f"{ours}.weight", torch.float32).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * expected.max())
    assert "output.weight" not in tensors, "the head is tied"
    assert field(path, "general.architecture") == "llama"
    assert field(path, "llama.context_length") == 2048
    assert field(path, "llama.attention.head_count_kv") == 2
    assert field(path, "tokenizer.chat_template") == (base / "chat_template.jinja").read_text()


@pytest.mark.parametrize(
    "kind, family, architecture",
    [
        ("qwen2", "qwen2.5", "qwen2"),
        ("qwen3", "qwen3", "qwen3"),
        ("mistral-window", "mistral-legacy", "llama"),
        ("phi3", "phi3", "phi3"),
        ("gemma3", "mistral-metaspace", "gemma3"),
        ("llama3-rope", "llama3", "llama"),
    ],
)
def test_gguf_of_other_families(
    kind: str, family: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "has_llama_cpp", lambda: False)
    config = {"query_pre_attn_scalar": 16} if kind == "gemma3" else {"sliding_window": 200}
    base = family_base(kind, family, tmp_path / "base", **config)
    stored = load_file(base / "model.safetensors")
    export(tuned(base, tmp_path, None), "gguf", tmp_path / "out", gguf_type="f32")
    path = tmp_path / "out" / "model-f32.gguf"
    tensors = tensors_of(path)
    factors = {"rope_freqs.weight"} if kind == "llama3-rope" else set()
    assert len(tensors) == len(stored) + len(factors)
    assert field(path, "general.architecture") == architecture
    windowed = kind in ("mistral-window", "phi3")
    assert field(path, f"{architecture}.context_length") == (200 if windowed else 256)
    norm = stored["model.norm.weight"].numpy() + (1 if kind == "gemma3" else 0)
    np.testing.assert_array_equal(tensors["output_norm.weight"].data, norm)
    if kind == "gemma3":
        assert field(path, "gemma3.rope.scaling.factor") == 8.0
        assert field(path, "gemma3.rope.freq_base_swa") == 1e4
    if kind == "qwen2":
        bias = stored["model.layers.0.self_attn.k_proj.bias"].numpy()
        np.testing.assert_array_equal(tensors["blk.0.attn_k.bias"].data, bias)


def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    for number, (kind, family, config, reason) in enumerate(
        [
            ("gemma2", "mistral-metaspace", {}, "the scale of its attention scores"),
            ("llama-dynamic", "llama3", {}, "a rotation rule"),
            ("smollm3", "smollm", {}, "not written for 'smollm3'"),
        ]
    ):
        base = family_base(kind, family, tmp_path / f"base-{number}", **config)
        with pytest.raises(BaseModelError, match=reason):
            export(tuned(base, tmp_path, None), "gguf", tmp_path / f"out-{number}")


def test_tokens_have_their_kinds(tmp_path: Path) -> None:
    write_family("mistral-legacy", tmp_path)
    renderer = Renderer.load(tmp_path)
    vocabulary = read_vocabulary(tmp_path, renderer.vocab_size + 3)
    kinds = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert vocabulary.kind == "llama"
    assert vocabulary.space_prefix
    assert kinds[b"<s>"] == CONTROL
    assert kinds[b"<0x0A>"] == BYTE
    assert vocabulary.types[-3:] == [UNUSED] * 3
    assert vocabulary.named["eos"] == renderer.tokenizer.token_to_id("</s>")
    write_family("qwen3", tmp_path / "byte")
    bytewise = read_vocabulary(tmp_path / "byte", 1000)
    assert (bytewise.kind, bytewise.words) == ("gpt2", "llama-bpe")
    kinds = dict(zip(bytewise.tokens, bytewise.types, strict=True))
    assert kinds[b"<think>"] == USER_DEFINED


def test_scores_join_in_the_order_of_the_merges(tmp_path: Path) -> None:
    """SentencePiece's way, by hand: always the neighbours whose union scores best."""
    write_family("mistral-legacy", tmp_path)
    tokenizer = Renderer.load(tmp_path).tokenizer
    vocabulary = read_vocabulary(tmp_path, tokenizer.get_vocab_size())
    assert vocabulary.scores is not None
    score = dict(zip((t.decode() for t in vocabulary.tokens), vocabulary.scores, strict=True))
    for text in ("What is the weather in Oslo", "then some more words"):
        pieces = list("\u2581" + text.replace(" ", "\u2581"))
        while True:
            joins = [
                (score[a + b], -place)
                for place, (a, b) in enumerate(pairwise(pieces))
                if a + b in score
            ]
            if not joins:
                break
            place = -max(joins)[1]
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        assert pieces == tokenizer.encode(text, add_special_tokens=False).tokens


def test_words_cut_in_an_unknown_way_are_refused(tmp_path: Path) -> None:
    write_family("qwen3", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BaseModelError, match="way of cutting words"):
        read_vocabulary(tmp_path, 1000)


def test_nothing_is_written_over_5_gb_in_one_file() -> None:
    assert directories.MAX_SHARD_BYTES == 5_000_000_000
