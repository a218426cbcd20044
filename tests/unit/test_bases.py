from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.families import write_family
from tunesmith.bases import EMBEDDED_NAME, describe, embedded_directory
from tunesmith.errors import BaseModelError

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 700,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


class Noon:
    def now(self) -> float:
        return 43200.9


def write_config(directory: Path, **changes: Any) -> None:
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))


def write_weights(directory: Path, names: list[str] | None = None) -> None:
    for name in names or ["model.safetensors"]:
        tensors = {f"{name}.a": torch.zeros(10, 6), f"{name}.b": torch.zeros(7)}
        save_file(tensors, directory / name, metadata={"format": "pt"})
    if names:
        weight_map = {f"{name}.{part}": name for name in names for part in "ab"}
        (directory / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": weight_map})
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    base = write_family("qwen2.5", tmp_path / "base")
    write_config(base)
    write_weights(base)
    return base


def test_what_a_directory_says(directory: Path) -> None:
    info = describe(directory, "mine", Noon())
    assert (info.name, info.path) == ("mine", directory)
    assert (info.family, info.slow) == ("qwen2", False)
    assert (info.context_length, info.hidden_size, info.vocab_size) == (2048, 64, 700)
    assert info.num_parameters == 67
    assert info.preserves_history
    assert info.has_tools
    assert info.created_at == 43200
    assert len(info.fingerprint) == 64


def test_embedded_base() -> None:
    info = describe(embedded_directory(), EMBEDDED_NAME, Noon())
    assert (info.family, info.slow, info.has_tools) == ("llama", False, True)
    assert info.preserves_history
    assert info.num_parameters > 10**6


def test_shards_count_together(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    write_weights(directory, ["model-1-of-2.safetensors", "model-2-of-2.safetensors"])
    assert describe(directory, "x", Noon()).num_parameters == 134
    (directory / "model-2-of-2.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"lacks 1 of 2 weight files.*Finish the download"):
        describe(directory, "x", Noon())


def test_fingerprint_follows_the_files(directory: Path) -> None:
    first = describe(directory, "x", Noon())
    assert replace(describe(directory, "y", Noon()), name="x") == first
    prints = {first.fingerprint}
    for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        path = directory / name
        path.write_text(path.read_text() + "\n")
        prints.add(describe(directory, "x", Noon()).fingerprint)
    save_file({"c": torch.zeros(67)}, directory / "model.safetensors")
    prints.add(describe(directory, "x", Noon()).fingerprint)
    assert len(prints) == 5


def test_windows_leave_the_context_whole(directory: Path) -> None:
    write_config(directory, model_type="mistral", sliding_window=1024)
    assert describe(directory, "x", Noon()).context_length == 2048


def test_models_that_also_see_are_told_apart(directory: Path) -> None:
    architectures = ["Gemma3ForConditionalGeneration"]
    whole = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
    write_config(directory, architectures=architectures, **whole, vision_config={"image_size": 9})
    with pytest.raises(BaseModelError, match=r"Gemma3ForCond.*vision_config.*guide\.md"):
        describe(directory, "x", Noon())


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd"])
def test_an_index_does_not_lead_out_of_its_directory(directory: Path, name: str) -> None:
    (directory / "model.safetensors").unlink()
    index = {"weight_map": {"a": name}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match="outside its directory"):
        describe(directory, "x", Noon())


def test_other_families_run_through_transformers(directory: Path) -> None:
    other = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": 99}
    write_config(directory, **other, max_position_embeddings=None, n_embd=32, hidden_size=None)
    info = describe(directory, "x", Noon())
    assert (info.family, info.slow) == ("other", True)
    assert (info.context_length, info.hidden_size) == (99, 32)
    write_config(directory, **other | {"n_positions": None}, max_position_embeddings=None)
    with pytest.raises(BaseModelError, match=r"none of: max_position_embeddings.*write it into"):
        describe(directory, "x", Noon())


def test_code_of_their_own_is_never_run(directory: Path) -> None:
    own = {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}
    write_config(directory, model_type="xyz", **own)
    with pytest.raises(BaseModelError, match="never executed here"):
        describe(directory, "x", Noon())
    # A model that is known by now may still name its old code.
    write_config(directory, model_type="phi", **own)
    assert describe(directory, "x", Noon()).slow
    write_config(directory, model_type="phi3", **own)
    assert not describe(directory, "x", Noon()).slow


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def lfs(directory: Path) -> None:
    (directory / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def adapter(directory: Path) -> None:
    (directory / "config.json").rename(directory / "adapter_config.json")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: shutil.rmtree(path), "There is no directory"),
        (lambda path: (path / "config.json").unlink(), "has no config.json. Give a Hugging Face"),
        (adapter, "holds an adapter, not a base model"),
        (lambda path: (path / "config.json").write_text("{"), "not valid JSON"),
        (lambda path: (path / "config.json").write_text("[]"), "no JSON object"),
        (pickled, r"pickled files.*save_pretrained\(NEW_DIR\) writes safetensors"),
        (lambda path: (path / "model.safetensors").unlink(), "has no model.safetensors and no"),
        (lfs, "Run: git lfs pull"),
        (cut, "not a whole safetensors file"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 99), "not a whole"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "not a whole"),
        (
            lambda path: (path / "model.safetensors").rename(path / "model.safetensors.index.json"),
            "not a safetensors index",
        ),
        (lambda path: (path / "tokenizer.json").unlink(), "has no tokenizer.json. Write it"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), "cannot be read"),
        (lambda path: (path / "tokenizer_config.json").write_text("{"), "not valid JSON"),
        (lambda path: (path / "chat_template.jinja").unlink(), "has no chat template"),
        (lambda path: write_config(path, vocab_size=300), "do not belong together"),
        (lambda path: write_config(path, is_encoder_decoder=True), "not a causal language model"),
        (
            lambda path: write_config(path, architectures=["BertForMaskedLM"]),
            "BertForMaskedLM is not a causal",
        ),
        (lambda path: write_config(path, quantization_config={"bits": 4}), "are quantised"),
        (lambda path: write_config(path, hidden_size=None), "lacks hidden_size"),
    ],
)
def test_unusable_directories(directory: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(directory)
    with pytest.raises(BaseModelError, match=said):
        describe(directory, "x", Noon())


def test_a_file_is_no_directory(directory: Path) -> None:
    with pytest.raises(BaseModelError, match="is a file, not a model directory"):
        describe(directory / "config.json", "x", Noon())


def test_describing_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from tunesmith.bases import EMBEDDED_NAME, describe, embedded_directory\n"
        "from tunesmith.ids import SystemClock\n"
        "import tunesmith.data.check, tunesmith.data.estimate\n"
        "describe(embedded_directory(), EMBEDDED_NAME, SystemClock())\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'fastapi'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
