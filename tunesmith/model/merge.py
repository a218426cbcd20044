"""Merge: an adapter's update as part of the weights, formed in fp32 and rounded once.

Tensors come from the base's own files, one at a time, and keep their names, their order and, unless
another type is asked for, their stored type: what a job did not change is the same bytes again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tunesmith.errors import AdapterError
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.model.weights import DTYPES, weight_files


@dataclass(frozen=True)
class StoredTensor:
    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize


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
        with safe_open(stored.file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
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
    length: Tensor = result.norm(dim=1)
    return result * (magnitude.float() / length)[:, None]


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """What the weight files of a model directory hold, without reading the tensors."""
    found: dict[str, StoredTensor] = {}
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                found[name] = StoredTensor(path, tuple(part.get_shape()), DTYPES[part.get_dtype()])
    return found


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
