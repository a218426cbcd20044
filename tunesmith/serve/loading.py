"""From files to models that are ready to answer. Runs on loading threads; keeps no state."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from tunesmith.errors import AdapterError, BaseModelError
from tunesmith.model import native
from tunesmith.model.adapter_files import WEIGHTS, check_content
from tunesmith.model.families import decoder_config
from tunesmith.model.frozen import freeze
from tunesmith.model.listing import problem_of
from tunesmith.model.load import CausalModel, load_model, read_config
from tunesmith.model.lora import Adapter
from tunesmith.model.merge import stored_tensors
from tunesmith.model.nf4_files import is_nf4
from tunesmith.model.precision import compute_dtype
from tunesmith.model.shapes import EMBEDDING
from tunesmith.serve.protocol import AdapterRef
from tunesmith.serve.rows import rows_of

Signature = tuple[tuple[str, int, int], ...]

# One id on its own and several at once take different paths through the kernels.
WARM_UP = ([[1] * 8], [[1]])
# The name of a directory that is known by its content.
PUBLISHED = re.compile(r"[0-9a-f]{64}")


def signature(base: Path) -> Signature:
    """Changes when the base's files are replaced: names, sizes and times."""
    files = sorted([base / "config.json", *base.glob("*.safetensors")])
    try:
        stats = [(file.name, file.stat()) for file in files]
    except (OSError, ValueError) as error:
        raise BaseModelError(f"The base model in {base} cannot be read: {error}.") from error
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@dataclass(frozen=True)
class BasePlan:
    """The memory that a base will take, about, and the type to load it in (None: as stored).
    `int8` and `in_fp32` as for `freeze`."""

    num_bytes: int
    dtype: torch.dtype | None
    int8: bool = False
    in_fp32: bool = False


def plan_base(base: Path, device: str, int8: bool) -> BasePlan:
    config = read_config(base)
    dtype = compute_dtype(config, device)
    if is_nf4(config):
        # What is in four bits stays so; only the embedding, norms and head grow.
        kept = sum(each.kept_bytes(dtype) for each in stored_tensors(base).values())
        return BasePlan(kept, dtype)
    kind = str(config.get("dtype") or config.get("torch_dtype"))
    grows = dtype is torch.float32 and kind in ("bfloat16", "float16")
    if device == "cpu" and decoder_config(config) is not None:
        in_fp32 = grows and kind == "bfloat16" and native.library() is not None
        if int8 or in_fp32:
            # The embedding is in fp32, too.
            sizes = {name: each.num_elements for name, each in stored_tensors(base).items()}
            num_bytes = sum(sizes.values()) * (1 if int8 else 2) + 4 * sizes.get(EMBEDDING, 0)
            return BasePlan(num_bytes, None, int8, in_fp32)
    num_bytes = sum(size for name, size, _ in signature(base) if name != "config.json")
    return BasePlan(num_bytes * (2 if grows else 1), dtype)


def load_base(base: Path, device: str, plan: BasePlan) -> CausalModel:
    """The model, after a first pass through it: mapped pages are read and kernels chosen.

    A published whole model has to be the one that its directory is named after; what would read
    gigabytes again is left to `tunesmith doctor`.
    """
    if PUBLISHED.fullmatch(base.name):
        problem = problem_of(base, base.name, deep=False)
        if problem is not None:
            raise BaseModelError(
                f"The files in {base} are not the model that was trained: {problem}. Restore them "
                "from a backup or train again."
            )
    stored = load_model(base, dtype=plan.dtype, device=device)
    model = freeze(stored, int8=plan.int8, in_fp32=plan.in_fp32)
    with torch.inference_mode():
        rows = rows_of(model, max_rows=1)
        rows.reserve(1, sum(len(ids[0]) for ids in WARM_UP))
        rows.add()
        for ids in WARM_UP:
            rows.run(ids, [None])
    return model


def adapter_bytes(ref: AdapterRef) -> int:
    try:
        return (ref.path / WEIGHTS).stat().st_size
    except OSError as error:
        raise AdapterError(f"The adapter {ref.sha256[:12]} cannot be read: {error}.") from error


def load_adapter(ref: AdapterRef, model: CausalModel) -> Adapter:
    """The adapter in the model's type, after its files were found to be the ones asked for."""
    check_content(ref.path, ref.sha256)
    adapter = Adapter.load(ref.path, model.linears, weights=model.weights, device=model.device)
    return adapter.to(model.dtype)
