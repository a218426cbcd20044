"""LoRA: the low-rank update that a job learns and the engine serves (Hu et al. 2021).

For a linear layer W the adapted output is W x + scale * B (A dropout(x)). A and B are kept in
fp32 (small updates vanish in bf16) and cast to the type of x where they are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from tunesmith.errors import AdapterError
from tunesmith.model.adapter_files import (
    CONFIG,
    WEIGHTS,
    LoraSpec,
    config_bytes,
    content_hash,
    read_spec,
)

_PREFIX = "base_model.model."
_SIDES = ("lora_A", "lora_B")


class Adapter:
    """Matrices A (rank, inputs) and B (outputs, rank) for each adapted linear, by its name."""

    def __init__(self, spec: LoraSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
        self.spec = spec
        self.a = dict(a)
        self.b = dict(b)
        self.training = False
        """Dropout is applied only while this is set."""

    @classmethod
    def create(cls, linears: Mapping[str, tuple[int, int]], spec: LoraSpec, seed: int) -> Adapter:
        """A fresh adapter that changes nothing yet: A random as in PEFT, B zero.

        The same arguments give the same bits.
        """
        generator = torch.Generator().manual_seed(seed)
        a, b = {}, {}
        for name, (outputs, inputs) in linears.items():
            bound = 1 / math.sqrt(inputs)  # kaiming_uniform_ with a = sqrt(5)
            a[name] = torch.empty(spec.rank, inputs).uniform_(-bound, bound, generator=generator)
            b[name] = torch.zeros(outputs, spec.rank)
        return cls(spec, a, b)

    def train(self) -> Adapter:
        """Makes the matrices collect gradients and switches dropout on; returns itself."""
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        self.training = True
        return self

    def parameters(self) -> list[Tensor]:
        """A and B of each linear in turn, in the order of the linears."""
        return [matrix for name in self.a for matrix in (self.a[name], self.b[name])]

    @property
    def num_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.parameters())

    def adapt(
        self, names: tuple[str, ...], x: Tensor, outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its update."""
        return added(outputs, [self.delta(name, x) for name in names])

    def delta(self, name: str, x: Tensor) -> Tensor | None:
        """The update (..., outputs) of one linear for inputs (..., inputs), in x's type."""
        a, b = self.a.get(name), self.b.get(name)
        if a is None or b is None:
            return None
        if self.training and self.spec.dropout > 0:
            x = F.dropout(x, self.spec.dropout)
        narrow = F.linear(x, a.to(x.dtype))
        # Scaled where it is narrowest.
        return F.linear(narrow * self.spec.scale, b.to(x.dtype))

    def to(self, dtype: torch.dtype, device: str | torch.device | None = None) -> Adapter:
        """A copy for serving in the model's type, without gradients or dropout."""
        a, b = (
            {
                name: x.detach().to(device=device or x.device, dtype=dtype)
                for name, x in side.items()
            }
            for side in (self.a, self.b)
        )
        return Adapter(self.spec, a, b)

    def save(self, directory: Path, base_name: str, *, transposed: bool = False) -> str:
        """Writes PEFT's two files into an existing directory; returns their content hash.

        The bytes depend on nothing but the arguments, so equal adapters have equal hashes.
        """
        tensors = {
            f"{_PREFIX}{name}.{side}.weight": matrix.detach().float().cpu().contiguous()
            for side, matrices in zip(_SIDES, (self.a, self.b), strict=True)
            for name, matrix in matrices.items()
        }
        content = to_safetensors(dict(sorted(tensors.items())), metadata={"format": "pt"})
        (directory / WEIGHTS).write_bytes(content)
        config = config_bytes(self.spec, self.a, base_name, transposed=transposed)
        (directory / CONFIG).write_bytes(config)
        return content_hash(directory)

    @classmethod
    def load(
        cls,
        directory: Path,
        linears: Mapping[str, tuple[int, int]],
        *,
        untrained_ok: bool = False,
        device: str | torch.device = "cpu",
    ) -> Adapter:
        """The saved adapter, in fp32, for a base with these linears.

        Strict: every tensor must belong to a linear, fit it and be finite, both sides of a pair
        must be there, and some B must be other than zero (unless `untrained_ok`): an adapter
        that loads onto nothing would answer as the base under the tuned name. Raises AdapterError.
        """
        spec = read_spec(directory)
        try:
            tensors = load_file(directory / WEIGHTS, device=str(device))
        except (SafetensorError, OSError) as error:
            raise AdapterError(f"{directory / WEIGHTS} cannot be read ({error}).") from error
        a, b = {}, {}
        for name, (outputs, inputs) in linears.items():
            keys = [f"{_PREFIX}{name}.{side}.weight" for side in _SIDES]
            if not any(key in tensors for key in keys):
                continue
            a[name] = _take(tensors, keys[0], (spec.rank, inputs))
            b[name] = _take(tensors, keys[1], (outputs, spec.rank))
        if tensors:
            raise AdapterError(f"The base has no linear layer for {min(tensors)}.")
        if not a:
            raise AdapterError(f"{directory / WEIGHTS} holds no LoRA matrices.")
        if not untrained_ok and not any(matrix.any() for matrix in b.values()):
            raise AdapterError(f"{directory / WEIGHTS} changes nothing: every lora_B is zero.")
        return cls(spec, a, b)


def _take(tensors: dict[str, Tensor], key: str, shape: tuple[int, int]) -> Tensor:
    tensor = tensors.pop(key, None)
    if tensor is None:
        raise AdapterError(f"The adapter lacks {key}.")
    if tuple(tensor.shape) != shape:
        raise AdapterError(f"{key} has shape {tuple(tensor.shape)}; the base needs {shape}.")
    # A copy: what is read is a mapped file, what is trained must be memory of our own.
    tensor = tensor.to(torch.float32, copy=True)
    if not torch.isfinite(tensor).all():
        raise AdapterError(f"{key} holds values that are not finite.")
    return tensor


class AdapterBatch:
    """The update for a batch whose rows use different adapters (None: the plain base).

    Rows of one adapter are computed together, and each row's result does not depend on its
    mates. Works on any x whose first axis is the batch.
    """

    def __init__(self, rows: Sequence[Adapter | None]) -> None:
        self._num_rows = len(rows)
        by_adapter: dict[int, tuple[Adapter, list[int]]] = {}
        for row, adapter in enumerate(rows):
            if adapter is not None:
                by_adapter.setdefault(id(adapter), (adapter, []))[1].append(row)
        self._groups = [(adapter, _index(found)) for adapter, found in by_adapter.values()]

    @classmethod
    def of(cls, rows: Sequence[Adapter | None]) -> AdapterBatch | None:
        """None where no row has an adapter, so that the base alone costs nothing."""
        return cls(rows) if any(adapter is not None for adapter in rows) else None

    def adapt(
        self, names: tuple[str, ...], x: Tensor, outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its rows' updates."""
        return added(outputs, [self.delta(name, x) for name in names])

    def delta(self, name: str, x: Tensor) -> Tensor | None:
        """The update for the linear called `name`; zero for rows without one."""
        assert x.shape[0] == self._num_rows, "one adapter (or None) for each row"
        result: Tensor | None = None
        for adapter, index in self._groups:
            whole = isinstance(index, slice) and index == slice(0, self._num_rows)
            update = adapter.delta(name, x if whole else x[index])
            if update is None:
                continue
            if whole:
                return update
            if result is None:
                result = x.new_zeros(*x.shape[:-1], update.shape[-1])
            result[index] = update
        return result


def added(outputs: Sequence[Tensor], updates: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Each output plus its update, if it has one."""
    return tuple(
        output if update is None else output + update
        for output, update in zip(outputs, updates, strict=True)
    )


def _index(rows: list[int]) -> slice | list[int]:
    """A slice where the rows are neighbours: it copies nothing."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return rows
