"""Merge: an adapter's update as part of the weights, formed in fp32 and rounded once.

Tensors come from the base's own files, one at a time, and keep their names, their order and, unless
another type is asked for, their stored type: what a job did not change is the same bytes again.
Where the base is kept in NF4, an update is put on what its bytes mean, the model that it was
learned beside, and the result has the type of before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tunesmith.errors import AdapterError
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import LEAST_LENGTH, Adapter
from tunesmith.model.nf4 import Nf4Tensor, read_state
from tunesmith.model.nf4_files import ABSMAX, BLOCK, LEVEL_TABLE, STATE
from tunesmith.model.weights import BYTES, DTYPES, weight_files


@dataclass(frozen=True)
class StoredTensor:
    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    """That it is given out in."""
    scales_file: Path | None = None
    """Of a matrix in NF4: where the sizes of its blocks are."""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize

    def kept_bytes(self, dtype: torch.dtype | None) -> int:
        """Of a base that is loaded as `dtype` (None: as it is stored)."""
        if self.scales_file is not None:
            return self.num_elements // 2 + self.num_elements // BLOCK * 4
        return self.num_elements * (dtype or self.dtype).itemsize


class MergedWeights:
    """The tensors of a base directory with an adapter's update in them (None: as they are).

    Raises AdapterError where the files lack a linear that the adapter changes.
    """

    def __init__(self, base: Path, adapter: Adapter | None, *, transposed: bool = False) -> None:
        self.tensors = stored_tensors(base)
        self._adapter = adapter
        self._transposed = transposed
        self._linears = _linears_by_tensor(self.tensors, adapter)

    def get(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, as `dtype` (None: as it is stored)."""
        stored = self.tensors[name]
        tensor = _read(stored, name)
        linear = self._linears.get(name)
        if linear is not None and self._adapter is not None:
            wide = tensor.float().T if self._transposed else tensor.float()
            tensor = merged(self._adapter, linear, wide)
            tensor = tensor.T if self._transposed else tensor
        return tensor.to(dtype or stored.dtype).contiguous()


def merge(model: CausalModel, adapter: Adapter) -> CausalModel:
    """The model with the update in its weights; what was given is not to be used any more."""
    if isinstance(model, Decoder):
        weights = dict(model.weights)
        for linear in adapter.a:
            name = f"{linear}.weight"
            weights[name] = merged(adapter, linear, weights[name].float()).to(model.dtype)
        return Decoder(model.config, weights)
    transposed = getattr(model, "transposed", False)
    for linear in adapter.a:
        weight = model.weights[f"{linear}.weight"]
        wide = weight.float().T if transposed else weight.float()
        wide = merged(adapter, linear, wide)
        weight.data.copy_(wide.T if transposed else wide)
    return model


def merged(adapter: Adapter, linear: str, weight: Tensor) -> Tensor:
    """The weight (outputs, inputs) of a linear with the adapter's update, all in fp32."""
    result = weight + adapter.spec.scale * (adapter.b[linear].float() @ adapter.a[linear].float())
    magnitude = adapter.magnitude.get(linear)
    if magnitude is None:
        return result
    # DoRA: each row gets the length that was learned.
    length: Tensor = result.norm(dim=1).clamp_min(LEAST_LENGTH)
    return result * (magnitude.float() / length)[:, None]


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """What the weight files of a model directory hold, without reading the tensors."""
    types = {**DTYPES, BYTES: torch.uint8}
    found: dict[str, StoredTensor] = {}
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                dtype = types[part.get_dtype()]
                found[name] = StoredTensor(path, tuple(part.get_shape()), dtype)
    for key in [name for name in found if name.endswith(STATE)]:
        name = key.removesuffix(STATE)
        state = read_state(bytes(_read(found.pop(key), key).tolist()), name)
        scales = found.pop(name + ABSMAX)
        found.pop(name + LEVEL_TABLE, None)
        found[name] = replace(
            found[name], shape=state.shape, dtype=state.dtype, scales_file=scales.file
        )
    return found


def _read(stored: StoredTensor, name: str) -> Tensor:
    with safe_open(stored.file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
    if stored.scales_file is None:
        return tensor
    with safe_open(stored.scales_file, framework="pt") as file:
        scales = file.get_tensor(name + ABSMAX)
    return Nf4Tensor(tensor, scales, stored.shape, stored.dtype).read(torch.float32)


def _linears_by_tensor(
    tensors: Mapping[str, StoredTensor], adapter: Adapter | None
) -> dict[str, str]:
    """Stored name -> linear. A file may leave out a prefix that the whole model's names have."""
    left = {f"{linear}.weight": linear for linear in (adapter.a if adapter else ())}
    found: dict[str, str] = {}
    for name in tensors:
        keys = [key for key in left if key == name or key.endswith(f".{name}")]
        if len(keys) == 1:
            found[name] = left.pop(keys[0])
    if left:
        raise AdapterError(
            f"The base's files hold no tensor {min(left)} ({len(left)} are missing): this family "
            "keeps its linears in another form there, so the adapter cannot be merged. Export it "
            "with --format adapter."
        )
    return found
