"""Models and adapters of random weights for the engines' benchmarks, in every engine's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tunesmith.bases import embedded_directory
from tunesmith.model.adapter_files import WEIGHTS, read_spec
from tunesmith.model.families import decoder_config
from tunesmith.model.fresh import init_weights
from tunesmith.model.gguf_file import ARCHITECTURES, library, write_gguf
from tunesmith.model.load import load_model, read_config
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.model.merge import MergedWeights

HALF_BILLION: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Qwen2.5-0.5B's, without the number of its layers, which is 24."""


def random_base(directory: Path, num_layers: int) -> Path:
    """The 0.5B shape with the embedded base's tokenizer."""
    directory.mkdir()
    for path in embedded_directory().iterdir():
        if path.name not in ("config.json", "model.safetensors") and path.is_file():
            (directory / path.name).write_bytes(path.read_bytes())
    config = {**HALF_BILLION, "num_hidden_layers": num_layers}
    (directory / "config.json").write_text(json.dumps(config))
    dimensions = decoder_config(config)
    assert dimensions is not None
    weights = {name: each.bfloat16() for name, each in init_weights(dimensions, 0).items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def random_adapter(base: Path, directory: Path, rank: int, seed: int) -> Path:
    """All linears, large enough to change answers."""
    directory.mkdir()
    adapter = Adapter.create(load_model(base).linears, LoraSpec(rank, 2.0 * rank), seed)
    generator = torch.Generator().manual_seed(seed)
    for matrix in adapter.b.values():
        matrix.normal_(0, 0.02, generator=generator)
    adapter.save(directory, base.name)
    return directory


def base_gguf(base: Path, path: Path, kind: str) -> Path:
    """What `tunesmith export --format gguf --type KIND` writes."""
    if not path.exists():
        write_gguf(path, base, MergedWeights(base, None), kind, name=base.name, stop_id=2)
    return path


def adapter_gguf(base: Path, adapter: Path, path: Path) -> Path:
    """An adapter as llama.cpp loads it beside a model. Not for Llama, whose q and k it permutes."""
    if path.exists():
        return path
    gguf = library()
    config = read_config(base)
    architecture = ARCHITECTURES[config["model_type"]]
    assert not architecture.permutes
    writer = gguf.GGUFWriter(path, architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, read_spec(adapter).alpha)
    arch = next(each for each, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture.name)
    known = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    with safe_open(adapter / WEIGHTS, "pt") as file:
        names = file.keys()
        for name in names:
            linear, _, half = name.removeprefix("base_model.model.").partition(".lora_")
            target = known.get_name(linear)
            matrix = file.get_tensor(name).float().numpy()
            writer.add_tensor(f"{target}.weight.lora_{half[0].lower()}", matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
