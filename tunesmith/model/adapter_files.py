"""Adapter files: the two files of a PEFT adapter, without torch.

`adapter_config.json` says what the tensors of `adapter_model.safetensors` mean. We write the
form that every PEFT reader knows, and read LoRA, rank-stabilised LoRA and DoRA adapters; what means
anything else (trained biases, whole modules, other ranks in places) is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.estimate import AUTO
from tunesmith.errors import AdapterError, JobError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FILES = (CONFIG, WEIGHTS)

# Keys of PEFT that, when set, change what the matrices mean.
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
    "use_qalora",
    "velora_config",
)
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ) also change the base's weights.
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraSpec:
    """Shape of an adapter: W x + scale B A dropout(x); DoRA also learns how long each row is."""

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        if not (self.rank >= 1 and self.alpha > 0 and 0 <= self.dropout < 1):
            raise AdapterError(f"{self} is out of range: rank >= 1, alpha > 0, 0 <= dropout < 1.")

    @property
    def scale(self) -> float:
        """alpha / rank, or rank-stabilised alpha / sqrt(rank) (Kalajdzievski 2023)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


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
        "use_dora": spec.dora,
        "use_rslora": spec.rslora,
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode("ascii")


def read_spec(directory: Path) -> LoraSpec:
    """The spec in adapter_config.json. Raises AdapterError where it is not LoRA as above."""
    try:
        config: Any = json.loads((directory / CONFIG).read_text("utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{directory} has no readable {CONFIG} ({error!r}).") from error
    refused = [key for key in _REFUSED if config.get(key)]
    if kind != "LORA" or refused:
        raise AdapterError(
            f"{CONFIG}: {', '.join(refused) or kind} is not supported; LoRA, rsLoRA and DoRA are."
        )
    if config.get("use_dora") and config.get("fan_in_fan_out"):
        raise AdapterError(f"{CONFIG}: DoRA on transposed weights (GPT-2) is not supported.")
    if config.get("bias", "none") != "none" or config.get("init_lora_weights") not in _PLAIN_INITS:
        raise AdapterError(f"{CONFIG}: the adapter also changes weights of the base.")
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        dropout = float(config.get("lora_dropout") or 0.0)
        rslora, dora = bool(config.get("use_rslora")), bool(config.get("use_dora"))
        return LoraSpec(rank, alpha, dropout, rslora, dora)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{CONFIG}: r and lora_alpha must be numbers ({error!r}).") from error


def continued(requested: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The hyperparameters of a job that goes on with an adapter: its shape, and what was asked.

    Full fine-tuning takes the adapter into the weights it starts from; nothing is left to shape.

    Raises AdapterError, and JobError where another shape was asked for.
    """
    if requested.get("finetuning_type") == "full":
        return dict(requested)
    spec = read_spec(directory)
    shape: dict[str, Any] = {
        "finetuning_type": "dora" if spec.dora else "lora",
        "lora_rank": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_rslora": spec.rslora,
        "lora_targets": targets(directory),
    }
    for name, is_there in shape.items():
        asked = requested.get(name, AUTO)
        if name == "lora_targets" and isinstance(asked, list):
            asked = sorted(set(asked))
        # Which linears a word such as "all" stands for is only known where the base is loaded.
        is_word = name == "lora_targets" and isinstance(asked, str)
        if asked not in (None, AUTO, is_there) and not is_word:
            raise JobError(
                f"The model to be continued has {name} {is_there}, so {name} {asked} would be "
                f"another adapter. Leave {name} out, or start from the base model.",
                code="invalid_hyperparameters",
                param=f"hyperparameters.{name}",
            )
    return {**requested, **shape}


def targeted(names: Iterable[str], wanted: str | Sequence[str]) -> list[str]:
    """Those of the linears that `lora_targets` means, in their order. Raises JobError."""
    names = list(names)
    attention = [name for name in names if "attn" in name or "attention" in name]
    words = {"all": names, "attention": attention}
    words["mlp"] = [name for name in names if name not in attention]
    if isinstance(wanted, str):
        return words[wanted]
    there = {name.rpartition(".")[2] for name in names}
    unknown = sorted(set(wanted) - there)
    if unknown:
        raise JobError(
            f"The base model has no linear layers called '{unknown[0]}'. It has "
            f"{', '.join(sorted(there))}; or say all, attention or mlp.",
            code="invalid_hyperparameters",
            param="hyperparameters.lora_targets",
        )
    return [name for name in names if name.rpartition(".")[2] in wanted]


def targets(directory: Path) -> list[str]:
    """The last parts of the names of the adapted linears, sorted. Raises AdapterError."""
    try:
        found = json.loads((directory / CONFIG).read_text("utf-8"))["target_modules"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{directory} has no readable {CONFIG} ({error!r}).") from error
    # PEFT also takes a pattern; then the tensors say what it came to.
    return sorted(found) if isinstance(found, list) else ["all"]


def content_hash(directory: Path) -> str:
    """sha256 (hex) over the bytes of adapter_config.json, then of adapter_model.safetensors."""
    digest = hashlib.sha256()
    for name in FILES:
        with (directory / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def check_content(directory: Path, sha256: str) -> None:
    """Raises AdapterError where the files are not the ones with that hash."""
    try:
        found = content_hash(directory)
    except OSError as error:
        raise AdapterError(f"The adapter {sha256[:12]} cannot be read: {error}.") from error
    if found != sha256:
        raise AdapterError(
            f"The files in {directory} are not the adapter {sha256[:12]} "
            f"(their content is {found[:12]}). Restore them from a backup or train again."
        )
