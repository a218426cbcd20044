"""Weights: a Hugging Face directory's safetensors as the decoder's tensors, strictly.

Files are memory-mapped: where the wanted type is the stored one nothing is copied, so that
loading costs milliseconds and several processes share the pages. A tensor that is missing, has
another shape or is not known to the decoder is an error that names it, never a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tunesmith.errors import BaseModelError
from tunesmith.model.families import DecoderConfig
from tunesmith.model.nf4 import Nf4Tensor, Nf4Weights, assembled
from tunesmith.model.shapes import EMBEDDING, HEAD, weight_shapes

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# Only as a part of a matrix in NF4.
BYTES = "U8"

# Rotation tables that old Llama checkpoints carry; they are computed here.
_REDUNDANT = re.compile(r"(^|\.)rotary_emb\.inv_freq$")


def load_weights(
    directory: Path, config: DecoderConfig, *, dtype: torch.dtype | None = None, device: str = "cpu"
) -> Mapping[str, Tensor]:
    """Every tensor of `weight_shapes(config)`, as `dtype` (None: as the embedding is stored).

    Matrices that are stored in NF4 stay so, and are read back as `dtype`.

    Raises BaseModelError naming the first tensor or file that is not as the config promises.
    """
    stored = stored_weights(directory, config, device=device)
    dtype = dtype or stored[EMBEDDING].dtype
    weights = {name: _as(each, dtype) for name, each in stored.items()}
    plain = {name: each for name, each in weights.items() if isinstance(each, Tensor)}
    return plain if len(plain) == len(weights) else Nf4Weights(weights, dtype)


def stored_weights(
    directory: Path, config: DecoderConfig, *, device: str = "cpu"
) -> dict[str, Tensor | Nf4Tensor]:
    """The same as they are stored."""
    stored: dict[str, Tensor] = {}
    for path in weight_files(directory):
        try:
            found = _read(path, device)
        except (SafetensorError, OSError) as error:
            raise BaseModelError(
                f"{path.name} cannot be read ({error}). Copy or download the file again."
            ) from error
        if twice := stored.keys() & found.keys():
            raise BaseModelError(
                f"{path.name} holds {min(twice)}, which is in another file too. "
                "Copy or download the whole directory again."
            )
        stored.update(found)
    tensors = assembled(stored)
    _check(tensors, config)
    return {name: tensors[name] for name in weight_shapes(config)}


def _as(weight: Tensor | Nf4Tensor, dtype: torch.dtype) -> Tensor | Nf4Tensor:
    return weight.to(dtype) if isinstance(weight, Tensor) else weight


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, the shards of an index included."""
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    if not (directory / INDEX).is_file():
        raise BaseModelError(
            f"{directory} has neither {SINGLE} nor {INDEX}. Save the model with "
            "save_pretrained of a current transformers; other weight formats are not read."
        )
    return [directory / name for name in _shards(directory / INDEX)]


def _shards(index: Path) -> list[str]:
    try:
        content: Any = json.loads(index.read_text("utf-8"))
        names = sorted(set(content["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise BaseModelError(f"{INDEX} is damaged ({error}). Download it again.") from error
    for name in names:
        # An index must not point out of its directory.
        if not isinstance(name, str) or Path(name).name != name:
            raise BaseModelError(f"{INDEX} names the file {name!r} outside its directory.")
        if not (index.parent / name).is_file():
            raise BaseModelError(f"{index.parent} lacks the shard {name}. Download it again.")
    return names


def _read(path: Path, device: str) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device=device) as file:
        names = [name for name in file.keys() if not _REDUNDANT.search(name)]  # noqa: SIM118
        for name in names:
            kind = file.get_slice(name).get_dtype()
            if kind not in DTYPES and kind != BYTES:
                raise BaseModelError(
                    f"{path.name}: {name} is stored as {kind}. Quantised weights cannot be used; "
                    "take the model's bf16, fp16 or fp32 version."
                )
        return {name: file.get_tensor(name) for name in names}


def _check(stored: Mapping[str, Tensor | Nf4Tensor], config: DecoderConfig) -> None:
    shapes = weight_shapes(config)
    missing = [name for name in shapes if name not in stored]
    if missing:
        raise BaseModelError(_listing("The weights lack", missing))
    for name, shape in shapes.items():
        if tuple(stored[name].shape) != shape:
            raise BaseModelError(
                f"{name} has shape {tuple(stored[name].shape)}; config.json asks for {shape}."
            )
        _check_type(name, stored[name])
    unknown = sorted(name for name in stored if name not in shapes)
    if config.tie_embeddings and HEAD in unknown:
        head, embedding = stored[HEAD], stored[EMBEDDING]
        assert isinstance(embedding, Tensor), "checked above"
        if not (isinstance(head, Tensor) and torch.equal(head, embedding)):
            raise BaseModelError(
                f"config.json ties the head to the embedding, but {HEAD} is another tensor. "
                'Set "tie_word_embeddings": false in config.json.'
            )
        unknown.remove(HEAD)
    if unknown:
        raise BaseModelError(_listing("The weights have tensors this family does not:", unknown))


def _check_type(name: str, weight: Tensor | Nf4Tensor) -> None:
    is_linear = name.endswith("_proj.weight")
    if weight.dtype not in DTYPES.values() or (isinstance(weight, Nf4Tensor) and not is_linear):
        raise BaseModelError(
            f"{name} is stored in bytes that mean nothing here. Take the model's bf16, fp16 or "
            "fp32 version; `tunesmith base add --quantize nf4` makes it small."
        )


def _listing(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3])}{more}. Check that config.json belongs to these files."
