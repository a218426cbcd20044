"""A whole model as a Hugging Face directory: weights, config, tokenizer, template, stop tokens.

What this writes is read by transformers 4 and 5, by other engines, and by us. The two generations
of transformers name two things differently, so both names are written: the rotation (`rope_theta`
and `rope_scaling`, now `rope_parameters`) and the type (`torch_dtype`, now `dtype`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunesmith.data.render import TOKENIZER_FILES
from tunesmith.model.load import read_config
from tunesmith.model.weights import INDEX, SINGLE

MAX_SHARD_BYTES = 5_000_000_000
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
# Beside the files that decide about ids: what other readers of the tokenizer want, and licences.
COMPANIONS = (
    *TOKENIZER_FILES,
    *("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"),
    *("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md"),
)


@dataclass(frozen=True)
class TensorPlan:
    """A tensor that will be written: how large it is, and how to come by it."""

    num_bytes: int
    make: Callable[[], Tensor]


def write_directory(
    base: Path,
    target: Path,
    tensors: Mapping[str, TensorPlan],
    dtype: torch.dtype,
    stop_ids: Iterable[int],
) -> None:
    """Fills an existing directory with the model that `tensors` are, of the kind that `base` is."""
    config = portable_config(read_config(base), str(dtype).removeprefix("torch."))
    _write_json(target / CONFIG, config)
    generation = _read_json(base / GENERATION_CONFIG)
    _write_json(target / GENERATION_CONFIG, generation_config(generation, config, stop_ids))
    copy_companions(base, target)
    write_weights(target, tensors)


def write_weights(
    target: Path, tensors: Mapping[str, TensorPlan], max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """One file, or several with an index where they are over `max_shard_bytes`.

    Memory holds one of these files at a time. The same tensors give the same bytes.
    """
    shards = _shards(tensors, max_shard_bytes)
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        part = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file = SINGLE if len(shards) == 1 else part
        made = {name: tensors[name].make() for name in names}
        save_file(made, target / file, metadata={"format": "pt"})
        # safetensors keeps its files from everybody else.
        (target / file).chmod(0o644)
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(plan.num_bytes for plan in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        _write_json(target / INDEX, index)


def _shards(tensors: Mapping[str, TensorPlan], max_shard_bytes: int) -> Sequence[list[str]]:
    shards: list[list[str]] = [[]]
    num_bytes = 0
    for name, plan in tensors.items():
        if shards[-1] and num_bytes + plan.num_bytes > max_shard_bytes:
            shards.append([])
            num_bytes = 0
        shards[-1].append(name)
        num_bytes += plan.num_bytes
    return shards


def copy_companions(base: Path, target: Path) -> None:
    for name in COMPANIONS:
        if (base / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, target / name)


def portable_config(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """A config.json with the old and the new names of rotation and type."""
    result = {**config, "torch_dtype": dtype, "dtype": dtype}
    rule = config.get("rope_parameters") or {}
    if any(isinstance(value, dict) for value in rule.values()):
        # One rotation a kind of layer: the old names know that of Gemma 3.
        whole, sliding = rule.get("full_attention") or {}, rule.get("sliding_attention") or {}
        local = sliding.get("rope_theta", config.get("rope_local_base_freq"))
        if local is not None:
            result["rope_local_base_freq"] = local
        return result | _old_names(whole, config)
    if rule:
        return result | _old_names(rule, config)
    if "rope_local_base_freq" in config:
        old = config.get("rope_scaling") or {}
        whole = {"rope_type": "default", "rope_theta": config.get("rope_theta", 1e6), **old}
        sliding = {"rope_type": "default", "rope_theta": config["rope_local_base_freq"]}
        both = {"full_attention": whole, "sliding_attention": sliding}
        return result | {"rope_parameters": both}
    if "rope_theta" in config or config.get("rope_scaling"):
        return result | {"rope_parameters": new_rule(config)}
    return result


def new_rule(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotation of a config with the old names, as `rope_parameters`."""
    scaling = dict(config.get("rope_scaling") or {})
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    scaling.pop("type", None)
    return {"rope_type": kind, "rope_theta": config.get("rope_theta", 10000.0), **scaling}


def _old_names(rule: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    theta = rule.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = rule.get("rope_type") or rule.get("type") or "default"
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    scaling = {name: value for name, value in rule.items() if name != "rope_theta"}
    return {"rope_theta": theta, "rope_scaling": {**scaling, "rope_type": kind, "type": kind}}


def generation_config(
    given: Mapping[str, Any], config: Mapping[str, Any], stop_ids: Iterable[int]
) -> dict[str, Any]:
    """generation_config.json that names every token the model was taught to stop with."""
    named = given.get("eos_token_id", config.get("eos_token_id"))
    named = named if isinstance(named, list) else [named]
    first = [number for number in named if isinstance(number, int)]
    stops = [*first, *sorted(set(stop_ids) - set(first))]
    others = {key: config[key] for key in ("bos_token_id", "pad_token_id") if key in config}
    return {**others, **given, "eos_token_id": stops[0] if len(stops) == 1 else stops}


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
