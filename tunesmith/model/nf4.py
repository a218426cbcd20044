"""NF4: the linears of a frozen base in four bits and a half (Dettmers et al. 2023, QLoRA).

64 weights share the size of their largest; each is the nearest of 16 levels, between which a normal
distribution has equal parts. Products read the weights back a linear at a time, in the forward pass
and again in the backward pass, so that memory never holds more than one in full.

Levels, blocks and files are those of bitsandbytes: what is read back is equal to the bit to what it
gives, and transformers reads a directory of ours through it.

Left out on purpose: scales in eight bits (0.4 bits less for each weight), kernels of our own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from tunesmith.errors import BaseModelError
from tunesmith.model.decoder import Decoder
from tunesmith.model.families import DecoderConfig
from tunesmith.model.nf4_files import ABSMAX, BLOCK, LEVEL_TABLE, STATE

LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
# Blocks read back at once: what stands between stays in the processor's cache, or is small.
CHUNK = {"cpu": 1 << 11, "cuda": 1 << 18}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Nf4Tensor:
    """A matrix in NF4."""

    packed: Tensor
    """Two levels in a byte, the first in its upper half; uint8, (elements / 2, 1)."""
    absmax: Tensor
    """Of each block of 64 elements; fp32."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    """That it had before."""

    @property
    def num_bytes(self) -> int:
        return self.packed.nbytes + self.absmax.nbytes

    def read(self, dtype: torch.dtype) -> Tensor:
        """The matrix, each element rounded once, from fp32 to `dtype`."""
        pairs, levels = self.packed.view(-1, BLOCK // 2), _pairs(self.packed.device)
        blocks = torch.empty(len(pairs), BLOCK, dtype=dtype, device=self.packed.device)
        chunk = CHUNK[self.packed.device.type]
        for start in range(0, len(pairs), chunk):
            span = slice(start, start + chunk)
            found = levels.index_select(0, pairs[span].flatten().int()).view(torch.float32)
            blocks[span] = found.view(-1, BLOCK).mul_(self.absmax[span, None])
        return blocks.view(self.shape)

    def stored(self, name: str) -> dict[str, Tensor]:
        """The tensors of bitsandbytes for a matrix that is called `name`."""
        state = {
            "quant_type": "nf4",
            "blocksize": BLOCK,
            "dtype": str(self.dtype).removeprefix("torch."),
            "shape": list(self.shape),
        }
        return {
            name: self.packed,
            name + ABSMAX: self.absmax,
            name + LEVEL_TABLE: torch.tensor(LEVELS),
            name + STATE: torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
        }


def quantise(weight: Tensor) -> Nf4Tensor:
    """The matrix in NF4. Its number of elements is a multiple of 64."""
    blocks = weight.detach().float().view(-1, BLOCK)
    absmax = blocks.abs().amax(1)
    levels = torch.tensor(LEVELS)
    scaled = blocks / absmax.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    found = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).view(-1, 2)
    packed = (found[:, :1] << 4) | found[:, 1:]
    return Nf4Tensor(packed, absmax, tuple(weight.shape), weight.dtype)


def assembled(stored: Mapping[str, Tensor]) -> dict[str, Tensor | Nf4Tensor]:
    """Stored tensors by name, each quantised matrix made of its parts.

    Raises BaseModelError where parts are missing or other than they should be.
    """
    result: dict[str, Tensor | Nf4Tensor] = dict(stored)
    for key in [name for name in stored if name.endswith(STATE)]:
        name = key.removesuffix(STATE)
        state = read_state(bytes(stored[key].tolist()), name)
        packed, absmax = stored.get(name), stored.get(name + ABSMAX)
        num_elements = torch.Size(state.shape).numel()
        if (
            packed is None
            or absmax is None
            or (packed.dtype, packed.numel() * 2) != (torch.uint8, num_elements)
            or (absmax.dtype, absmax.numel() * BLOCK) != (torch.float32, num_elements)
        ):
            raise BaseModelError(
                f"The NF4 parts of {name} do not belong together. Quantise the model again with "
                "`tunesmith base add --quantize nf4`."
            )
        result[name] = Nf4Tensor(packed, absmax, state.shape, state.dtype)
        for part in (ABSMAX, LEVEL_TABLE, STATE):
            result.pop(name + part, None)
    return result


@dataclass(frozen=True)
class State:
    """What is written about a quantised matrix beside it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def read_state(content: bytes, name: str) -> State:
    """Raises BaseModelError for another form of NF4 than ours."""
    try:
        found: Any = json.loads(content)
        kind, size = found["quant_type"], found["blocksize"]
        state = State(tuple(int(each) for each in found["shape"]), TYPES[found["dtype"]])
    except (ValueError, KeyError, TypeError) as error:
        raise BaseModelError(f"{name} says nothing usable about its NF4 form ({error}).") from error
    if (kind, size) != ("nf4", BLOCK) or "nested_blocksize" in found:
        raise BaseModelError(
            f"{name} is quantised in another way than NF4 in blocks of {BLOCK} with fp32 scales. "
            "Quantise the original model with `tunesmith base add --quantize nf4`."
        )
    return state


class Nf4Weights(Mapping[str, Tensor]):
    """All weights of a base by name; a quantised one is read back each time it is asked for."""

    def __init__(self, weights: Mapping[str, Tensor | Nf4Tensor], dtype: torch.dtype) -> None:
        self._weights = weights
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        weight = self._weights[name]
        return weight.read(self._dtype) if isinstance(weight, Nf4Tensor) else weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    @property
    def plain(self) -> list[Tensor]:
        return [weight for weight in self._weights.values() if isinstance(weight, Tensor)]

    @property
    def num_bytes(self) -> int:
        """As they are kept."""
        return sum(
            weight.num_bytes if isinstance(weight, Nf4Tensor) else weight.nbytes
            for weight in self._weights.values()
        )


class Nf4Linears:
    """The products of linears over weights that are read back for each of them."""

    def __init__(self, weights: Nf4Weights) -> None:
        self._weights = weights

    def __call__(self, names: tuple[str, ...], x_BTE: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            _Product.apply(x_BTE, self._weights, name)  # type: ignore[no-untyped-call]
            for name in names
        )


class Nf4Decoder(Decoder):
    """A decoder whose linears are kept in NF4; embedding, norms and head are as ever."""

    def __init__(self, config: DecoderConfig, weights: Nf4Weights) -> None:
        super().__init__(config, weights, Nf4Linears(weights))
        self._num_bytes, self._kept = weights.num_bytes, weights.plain

    @property
    def num_bytes(self) -> int:
        """Memory of the weights, mapped pages included."""
        return self._num_bytes

    @property
    def kept_weights(self) -> Collection[Tensor]:
        return self._kept


class _Product(Function):
    """x W^T + bias, keeping neither W nor x: what is frozen has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Nf4Weights, name: str) -> Tensor:
        ctx.weights, ctx.name = weights, name
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] @ ctx.weights[f"{ctx.name}.weight"], None, None


@cache
def _pairs(device: torch.device) -> Tensor:
    """(256,): the two levels, in fp32, that a byte stands for, as the bits of one number."""
    levels = torch.tensor(LEVELS)
    pairs = torch.stack((levels.repeat_interleave(16), levels.repeat(16)), 1)
    return pairs.view(torch.int64).flatten().to(device)
