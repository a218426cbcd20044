"""Weights: mapped, not copied; strict, with the tensor's name in the message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tunesmith.errors import BaseModelError
from tunesmith.model.families import DecoderConfig
from tunesmith.model.fresh import init_weights
from tunesmith.model.load import load_model
from tunesmith.model.weights import INDEX, SINGLE, load_weights

TIED = DecoderConfig(64, 32, 48, 1, 4, 2, 8, 128)
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
UP = "model.layers.0.mlp.up_proj.weight"


def write(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = init_weights(TIED, 0)
    change(weights)
    save_file(weights, directory / SINGLE)


def test_stored_weights_are_mapped_not_copied(tmp_path: Path) -> None:
    write(tmp_path, lambda weights: None)
    weights = load_weights(tmp_path, TIED)
    maps = Path("/proc/self/maps").read_text()
    spans = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in maps.splitlines()
        if line.endswith(str(tmp_path / SINGLE))
    ]
    address = weights[UP].data_ptr()
    assert any(start <= address < stop for start, stop in spans)


def test_a_redundant_tied_head_and_old_rotation_tables_are_fine(tmp_path: Path) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        weights[HEAD] = weights[EMBEDDING].clone()
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    write(tmp_path, change)
    assert HEAD not in load_weights(tmp_path, TIED)


def mixed(weights: dict[str, Tensor]) -> None:
    for name in weights:
        if not name.endswith("norm.weight"):
            weights[name] = weights[name].bfloat16()


def test_one_type_even_where_norms_are_stored_wider(tmp_path: Path) -> None:
    write(tmp_path, mixed)
    assert {weight.dtype for weight in load_weights(tmp_path, TIED).values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop(UP), f"lack {UP}"),
        (lambda w: w.update({UP: torch.zeros(48, 31)}), f"{UP} has shape"),
        (lambda w: w.update({"model.extra.weight": torch.zeros(1)}), "model.extra.weight"),
        (lambda w: w.update({HEAD: torch.zeros(64, 32)}), "tie_word_embeddings"),
        (lambda w: w.update({UP: w[UP].to(torch.int8)}), "stored as I8"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], object], says: str, tmp_path: Path
) -> None:
    write(tmp_path, change)
    with pytest.raises(BaseModelError, match=says):
        load_weights(tmp_path, TIED)


def shard(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """The weights in three files with an index, the second of them changed."""
    weights = init_weights(TIED, 0)
    names = sorted(weights)
    weight_map = {}
    for number in range(3):
        part = {name: weights[name] for name in names[number::3]}
        if number == 1:
            change(part)
        file = f"model-{number + 1}-of-3.safetensors"
        save_file(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_mapped_and_whole(tmp_path: Path) -> None:
    shard(tmp_path, lambda part: None)
    weights = load_weights(tmp_path, TIED)
    assert all(torch.equal(weights[name], w) for name, w in init_weights(TIED, 0).items())
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) >= 3
    (tmp_path / "model-2-of-3.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"lacks the shard model-2-of-3\.safetensors"):
        load_weights(tmp_path, TIED)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda part: part.pop(min(part)), "The weights lack"),
        (lambda part: part.update({min(part): torch.zeros(3)}), r"has shape \(3,\)"),
        (lambda part: part.update({"model.extra.weight": torch.zeros(1)}), "model.extra.weight"),
        (lambda part: part.update({EMBEDDING: torch.zeros(64, 32)}), "in another file too"),
    ],
)
def test_shards_are_held_to_the_config(
    change: Callable[[dict[str, Tensor]], object], says: str, tmp_path: Path
) -> None:
    shard(tmp_path, change)
    with pytest.raises(BaseModelError, match=says):
        load_weights(tmp_path, TIED)


def test_pickled_weights_are_no_weights(tmp_path: Path) -> None:
    torch.save(init_weights(TIED, 0), tmp_path / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="other weight formats are not read"):
        load_weights(tmp_path, TIED)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {UP: "../other.safetensors"}}, "outside its directory"),
        ({"weight_map": {UP: "/etc/passwd"}}, "outside its directory"),
        ({"weight_map": {UP: 7}}, "outside its directory"),
        ({"weight_map": {UP: "gone.safetensors"}}, "lacks the shard"),
        ({"weight_map": []}, "damaged"),
        ({}, "damaged"),
        ([], "damaged"),
    ],
)
def test_a_bad_index_is_refused(index: object, says: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match=says):
        load_weights(tmp_path, TIED)


def test_a_directory_without_safetensors_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="save_pretrained"):
        load_weights(tmp_path, TIED)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0{"])
def test_damaged_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(content)
    with pytest.raises(BaseModelError, match="cannot be read"):
        load_weights(tmp_path, TIED)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no readable"), ("{", "no readable"), ("[]", "not a JSON")]
)
def test_a_directory_without_a_config_is_refused(
    content: str | None, says: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BaseModelError, match=says):
        load_model(tmp_path)
