"""Adapter files: the two files of a PEFT adapter, without torch.

`adapter_config.json` says what the tensors of `adapter_model.safetensors` mean. We write the
plain form that every PEFT reader knows, and read any adapter whose meaning is that plain form;
what changes the mathematics (DoRA, trained biases, whole modules) is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import AdapterError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FILES = (CONFIG, WEIGHTS)

# Keys of PEFT that, when set, make an adapter more than two matrices a linear.
_REFUSED = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ) also change the base's weights.
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraSpec:
    """Shape of an adapter: W x + (alpha / rank) B A dropout(x)."""

    rank: int
    alpha: float
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not (self.rank >= 1 and self.alpha > 0 and 0 <= self.dropout < 1):
            raise AdapterError(f"{self} is out of range: rank >= 1, alpha > 0, 0 <= dropout < 1.")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def config_bytes(
    spec: LoraSpec, names: Iterable[str], base_name: str, *, transposed: bool = False
) -> bytes:
    """adapter_config.json for linears called `names`; the same arguments give the same bytes.

    `transposed` marks linears that keep their weight as (inputs, outputs), as GPT-2 does.
    """
    alpha = int(spec.alpha) if float(spec.alpha).is_integer() else spec.alpha
    content = {
        "alpha_pattern": {},
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": spec.dropout,
        "peft_type": "LORA",
        "r": spec.rank,
        "rank_pattern": {},
        "target_modules": sorted({name.rpartition(".")[2] for name in names}),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode("ascii")


def read_spec(directory: Path) -> LoraSpec:
    """The spec in adapter_config.json. Raises AdapterError where it is not plain LoRA."""
    try:
        config: Any = json.loads((directory / CONFIG).read_text("utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{directory} has no readable {CONFIG} ({error!r}).") from error
    refused = [key for key in _REFUSED if config.get(key)]
    if kind != "LORA" or refused:
        raise AdapterError(
            f"{CONFIG}: {', '.join(refused) or kind} is not supported; plain LoRA is."
        )
    if config.get("bias", "none") != "none" or config.get("init_lora_weights") not in _PLAIN_INITS:
        raise AdapterError(f"{CONFIG}: the adapter also changes weights of the base.")
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        dropout = float(config.get("lora_dropout") or 0.0)
        # Rank-stabilised LoRA scales by alpha / sqrt(rank): the same as a larger alpha.
        return LoraSpec(
            rank, alpha * math.sqrt(rank) if config.get("use_rslora") else alpha, dropout
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{CONFIG}: r and lora_alpha must be numbers ({error!r}).") from error


def content_hash(directory: Path) -> str:
    """sha256 (hex) over the bytes of adapter_config.json, then of adapter_model.safetensors."""
    digest = hashlib.sha256()
    for name in FILES:
        with (directory / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
