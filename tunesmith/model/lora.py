"""LoRA: the low-rank update that a job learns and the engine serves (Hu et al. 2021).

For a linear layer W the adapted output is W x + scale * B (A dropout(x)). A and B are kept in
fp32 (small updates vanish in bf16) and cast to the type of x where they are used.

DoRA (Liu et al. 2024) then stretches each row of W + scale B A to a learned length, the magnitude.
It needs W itself, for the length that the row has; that length is a constant to the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
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
from tunesmith.model.decoder import Linears, PlainLinears
from tunesmith.model.passes import activated, adapted_products, gated_product

# Of a row of the weights: a row of zeros, which some bases have, stays one instead of becoming NaN.
LEAST_LENGTH = 1e-12
_PREFIX = "base_model.model."
_SIDES = ("lora_A", "lora_B")
_MAGNITUDE = "lora_magnitude_vector"


class Adapter:
    """Matrices A (rank, inputs) and B (outputs, rank) for each adapted linear, by its name.

    DoRA has a magnitude (outputs,) beside them, and `weights`, the base's tensors by name.
    """

    def __init__(
        self,
        spec: LoraSpec,
        a: Mapping[str, Tensor],
        b: Mapping[str, Tensor],
        magnitude: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.spec = spec
        self.a = dict(a)
        self.b = dict(b)
        self.magnitude = dict(magnitude or {})
        self.training = False
        """Dropout is applied only while this is set."""
        self._weights = weights or {}
        self._plain_squares: dict[str, Tensor] = {}
        self._gains: dict[str, Tensor] | None = None
        """Of a copy for serving, whose matrices do not change."""

    @classmethod
    def create(
        cls,
        linears: Mapping[str, tuple[int, int]],
        spec: LoraSpec,
        seed: int,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Adapter:
        """A fresh adapter that changes nothing yet: A random as in PEFT, B zero.

        The same arguments give the same bits. DoRA takes the base's `weights`.
        """
        generator = torch.Generator().manual_seed(seed)
        a, b = {}, {}
        for name, (outputs, inputs) in linears.items():
            bound = 1 / math.sqrt(inputs)  # kaiming_uniform_ with a = sqrt(5)
            a[name] = torch.empty(spec.rank, inputs).uniform_(-bound, bound, generator=generator)
            b[name] = torch.zeros(outputs, spec.rank)
        if not spec.dora:
            return cls(spec, a, b)
        assert weights is not None, "DoRA is about the weights of the base"
        magnitude = {name: _squares(weights[f"{name}.weight"]).sqrt() for name in linears}
        return cls(spec, a, b, magnitude, weights)

    def train(self) -> Adapter:
        """Makes the matrices collect gradients and switches dropout on; returns itself."""
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        self.training = True
        self._gains = None
        return self

    def parameters(self) -> list[Tensor]:
        """A and B (and the magnitude) of each linear in turn, in the order of the linears."""
        sides = (self.a, self.b, *([self.magnitude] if self.magnitude else []))
        return [side[name] for name in self.a for side in sides]

    @property
    def num_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.parameters())

    def adapt(self, names: tuple[str, ...], x: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its update."""
        if isinstance(products, PlainLinears) and self._is_learnt_whole(names):
            return adapted_products(
                x,
                [products.factor(name) for name in names],
                [products.bias(name) for name in names],
                [self.a[name] for name in names],
                [self.b[name] for name in names],
                self.spec.scale,
            )
        updated = added(products(names, x), [self.delta(name, x) for name in names])
        if not self.magnitude:
            return updated
        return tuple(self._stretched(name, each) for name, each in zip(names, updated, strict=True))

    def adapt_gated(
        self, name: str, gate: Tensor, up: Tensor, kind: str, products: Linears
    ) -> Tensor:
        """The output of one linear for x = activated(gate, kind) * up, with its update."""
        if not (isinstance(products, PlainLinears) and self._is_learnt_whole((name,))):
            return self.adapt((name,), activated(gate, kind) * up, products)[0]
        frozen = products.factor(name), products.bias(name)
        return gated_product(gate, up, kind, *frozen, self.a[name], self.b[name], self.spec.scale)

    def _is_learnt_whole(self, names: tuple[str, ...]) -> bool:
        """Whether product and update can be formed, and learned from, in one pass."""
        return (
            self.training
            and torch.is_grad_enabled()
            and not self.spec.dropout
            and not self.magnitude
            and all(name in self.a for name in names)
        )

    def _stretched(self, name: str, updated: Tensor) -> Tensor:
        """DoRA's output, from that of plain LoRA; a bias is no part of what is stretched."""
        if name not in self.magnitude:
            return updated
        gain = self.gain(name).to(updated.dtype)
        bias = self._weights.get(f"{name}.bias")
        return updated * gain if bias is None else (updated - bias) * gain + bias

    def gain(self, name: str) -> Tensor:
        """(outputs,): the magnitude over the length that each row of W + scale B A has."""
        if self._gains is not None:
            return self._gains[name]
        weight = self._weights[f"{name}.weight"]
        if name not in self._plain_squares:
            self._plain_squares[name] = _squares(weight)
        a, b, scale = self.a[name].detach(), self.b[name].detach(), self.spec.scale
        # |w + s b A|^2 for each row, without ever forming the sum.
        cross = ((weight @ a.to(weight.dtype).T).to(b.dtype) * b).sum(1)
        square = ((b @ (a @ a.T)) * b).sum(1)
        squares = self._plain_squares[name] + 2 * scale * cross + scale**2 * square
        return self.magnitude[name] / squares.clamp_min(LEAST_LENGTH**2).sqrt()

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
        # Laid out as the base's weights are for serving (`frozen.py`).
        a, b = (
            {
                name: x.detach().to(device=device or x.device, dtype=dtype).T.contiguous().T
                for name, x in side.items()
            }
            for side in (self.a, self.b)
        )
        magnitude = {
            name: x.detach().to(device or x.device, copy=True) for name, x in self.magnitude.items()
        }
        copy = Adapter(self.spec, a, b, magnitude, self._weights)
        if magnitude:
            copy._gains = {name: self.gain(name).detach().to(dtype) for name in magnitude}
        return copy

    def save(self, directory: Path, base_name: str, *, transposed: bool = False) -> str:
        """Writes PEFT's two files into an existing directory; returns their content hash.

        The bytes depend on nothing but the arguments, so equal adapters have equal hashes.
        """
        tensors = {
            f"{_PREFIX}{name}.{side}.weight": matrix.detach().float().cpu().contiguous()
            for side, matrices in zip(_SIDES, (self.a, self.b), strict=True)
            for name, matrix in matrices.items()
        }
        tensors |= {
            f"{_PREFIX}{name}.{_MAGNITUDE}": magnitude.detach().float().cpu().contiguous()
            for name, magnitude in self.magnitude.items()
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
        weights: Mapping[str, Tensor] | None = None,
    ) -> Adapter:
        """The saved adapter, in fp32, for a base with these linears and, for DoRA, `weights`.

        Strict: every tensor must belong to a linear, fit it and be finite, all parts of an update
        must be there, and some B must be other than zero (unless `untrained_ok`): an adapter
        that loads onto nothing would answer as the base under the tuned name. Raises AdapterError.
        """
        spec = read_spec(directory)
        try:
            # Not `load_file`, which (safetensors 0.8) leaks two objects for each tensor of each
            # load: an engine loads adapters for months.
            tensors = from_safetensors((directory / WEIGHTS).read_bytes())
        except (SafetensorError, OSError) as error:
            raise AdapterError(f"{directory / WEIGHTS} cannot be read ({error}).") from error
        a, b, magnitude = {}, {}, {}
        for name, (outputs, inputs) in linears.items():
            keys = [f"{_PREFIX}{name}.{side}.weight" for side in _SIDES]
            if not any(key in tensors for key in keys):
                continue
            a[name] = _take(tensors, keys[0], (spec.rank, inputs), device)
            b[name] = _take(tensors, keys[1], (outputs, spec.rank), device)
            if spec.dora:
                key = f"{_PREFIX}{name}.{_MAGNITUDE}"
                magnitude[name] = _take(tensors, key, (outputs,), device)
        if tensors:
            raise AdapterError(f"The base has no linear layer for {min(tensors)}.")
        if not a:
            raise AdapterError(f"{directory / WEIGHTS} holds no LoRA matrices.")
        if not untrained_ok and not any(matrix.any() for matrix in b.values()):
            raise AdapterError(f"{directory / WEIGHTS} changes nothing: every lora_B is zero.")
        if spec.dora and weights is None:
            raise AdapterError("A DoRA adapter cannot be used without the weights of its base.")
        return cls(spec, a, b, magnitude, weights)


def _squares(weight: Tensor) -> Tensor:
    """(outputs,): the squared length of each row, in fp32."""
    return weight.detach().float().square().sum(1)


def _take(
    tensors: dict[str, Tensor], key: str, shape: tuple[int, ...], device: str | torch.device
) -> Tensor:
    tensor = tensors.pop(key, None)
    if tensor is None:
        raise AdapterError(f"The adapter lacks {key}.")
    if tuple(tensor.shape) != shape:
        raise AdapterError(f"{key} has shape {tuple(tensor.shape)}; the base needs {shape}.")
    # A copy: the bytes of a file lie as it happens, torch's own memory as its kernels like it.
    tensor = tensor.to(device, torch.float32, copy=True)
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
        self._groups = [
            (adapter, _index(found, len(rows))) for adapter, found in by_adapter.values()
        ]

    @classmethod
    def of(cls, rows: Sequence[Adapter | None]) -> AdapterBatch | None:
        """None where no row has an adapter, so that the base alone costs nothing."""
        return cls(rows) if any(adapter is not None for adapter in rows) else None

    def adapt(self, names: tuple[str, ...], x: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """The outputs of the linears `names` for input x, each with its rows' updates."""
        outputs = products(names, x)
        if not any(adapter.magnitude for adapter, _ in self._groups):
            return added(outputs, [self.delta(name, x) for name in names])
        changed = tuple(output.clone() for output in outputs)
        for adapter, index in self._groups:
            rows = tuple(output[index] for output in outputs)
            own = adapter.adapt(names, x[index], lambda *_, rows=rows: rows)
            for output, part in zip(changed, own, strict=True):
                output[index] = part
        return changed

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


def _index(rows: list[int], num_rows: int) -> slice | list[int]:
    """A slice where the rows are neighbours: it copies nothing. One of several is taken twice: a
    product of a single row has other bits than one of several."""
    if len(rows) == 1 < num_rows:
        return rows * 2
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return rows
