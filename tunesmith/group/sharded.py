"""A decoder whose layers are spread over the processes of a job, by torch's FSDP2.

Each process keeps a part of every layer; a layer is whole only while it computes, forwards and
backwards. Embedding, last norm and head stay whole everywhere: they are read outside of layers.

Fetching a layer takes all processes, so all make the same passes in the same order: whoever has
fewer micro-batches makes up for it (`Forward.passes`), and where the first one computes alone the
others go along (`alone`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.group.world import World
from tunesmith.model.attention import Attention
from tunesmith.model.decoder import Block, Decoder, LowRankUpdate
from tunesmith.model.families import DecoderConfig, decoder_config
from tunesmith.model.load import load_model
from tunesmith.model.memory import return_freed_memory
from tunesmith.model.merge import stored_tensors
from tunesmith.model.shapes import weight_shapes

LAYERS = "model.layers."


@dataclass(frozen=True)
class Sizes:
    """Weights of a model whose layers can be spread."""

    kept: int
    """Outside of layers: whole in every process."""
    layers: int
    largest_layer: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Sizes:
        """By a family's config.json."""
        read = decoder_config(config)
        assert read is not None, "others are slow"
        sizes: dict[int | None, int] = {}
        for name, shape in weight_shapes(read).items():
            sizes[layer_of(name)] = sizes.get(layer_of(name), 0) + math.prod(shape)
        kept = sizes.pop(None)
        return cls(kept, sum(sizes.values()), max(sizes.values()))


class Layer(nn.Module):
    """The weights of one layer, for FSDP2 to take apart and put together."""

    def __init__(self, weights: Mapping[str, Tensor], *, trained: bool) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(_key(name), nn.Parameter(weight, requires_grad=trained))

    def forward(self, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        return work(x)


class Layers(nn.Module):
    """A part of each layer; they are fetched in the order of a pass, each ahead of its turn."""

    def __init__(
        self,
        stored: Decoder,
        dtype: torch.dtype,
        device: str,
        world: World,
        compute: torch.dtype | None = None,
    ) -> None:
        """The parts are of `dtype`. With `compute` they are trained, and compute as that."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        super().__init__()
        if device == "cpu":
            # Layers are fetched and dropped between activations that stay.
            return_freed_memory()
        self.each = nn.ModuleList()
        mesh = init_device_mesh(device, (world.size,))
        policy = MixedPrecisionPolicy(compute, dtype, cast_forward_inputs=False)
        for number in range(stored.config.num_layers):
            names = [name for name in stored.weights if layer_of(name) == number]
            weights = {name: stored.weights[name].to(device, dtype) for name in names}
            layer: Any = Layer(weights, trained=compute is not None)
            fully_shard(layer, mesh=mesh, mp_policy=policy)
            # Losses are divided by the tokens of the whole step: gradients are sums, not means.
            layer.set_gradient_divide_factor(1.0)
            layer.set_force_sum_reduction_for_comms(True)
            self.each.append(layer)
        fully_shard(self, mesh=mesh)

    def forward(self, work: Callable[[], Tensor]) -> Tensor:
        return work()

    def part(self, name: str) -> Any:
        """By its name as a weight: a part (DTensor) or, while its layer computes, all of it."""
        return self.each[int(name.split(".")[2])]._parameters[_key(name)]


class ShardedWeights(Mapping[str, Tensor]):
    """Whole weights by their names; outside of its layer's pass all processes must ask for one."""

    def __init__(self, names: list[str], kept: Mapping[str, Tensor], layers: Layers) -> None:
        self._names = names
        self._kept = kept
        self._layers = layers

    def __getitem__(self, name: str) -> Tensor:
        if layer_of(name) is None:
            return self._kept[name]
        found = self._layers.part(name)
        whole: Tensor = found.full_tensor() if hasattr(found, "full_tensor") else found
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class ShardedDecoder(Decoder):
    """Made by `spread`, in all processes of a job."""

    def __init__(
        self, config: DecoderConfig, weights: ShardedWeights, layers: Layers, world: World
    ) -> None:
        super().__init__(config, weights)
        self._layers = layers
        self._world = world
        self._leads = False
        self._fetched: set[int] = set()

    @property
    def num_bytes(self) -> int:
        """Memory of the weights in this process."""
        kept = (self.weights[name] for name in kept_names(self))
        parts = (here(parameter) for parameter in self._layers.parameters())
        return sum(each.nbytes for each in (*kept, *parts))

    def is_fetched(self, tensor: Tensor) -> bool:
        """Whether it is a part of the layer that computes now: not there for long."""
        return tensor.untyped_storage().data_ptr() in self._fetched

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The first process computes in the block as it likes; the others go along until it ends,
        and find nothing to do in it."""
        if self._world.is_first:
            self._leads = True
            try:
                yield
            finally:
                self._leads = False
                self._world.agree(0)
            return
        with torch.no_grad():
            while self._world.agree(0):
                self.hidden(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        yield

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        attention: Attention | None = None,
        lora: LowRankUpdate | None = None,
        recompute: bool = False,
        places_N: Tensor | None = None,
    ) -> Tensor:
        if self._leads:
            self._world.agree(1)
        work = partial(
            super().hidden,
            ids_BT,
            positions_BT=positions_BT,
            attention=attention,
            lora=lora,
            recompute=recompute,
            places_N=places_N,
        )
        states_BTE: Tensor = self._layers(work)
        return states_BTE

    def _layer(self, block: Block, x: Tensor, *rest: Any) -> Tensor:
        compute, module = super()._layer, self._layers.each[block.layer]

        def work(x: Tensor) -> Tensor:
            self._fetched = {p.untyped_storage().data_ptr() for p in module.parameters()}
            return compute(block, x, *rest)

        result: Tensor = module(x, work)
        return result


def spread(directory: Path, dtype: torch.dtype, device: str, world: World) -> ShardedDecoder:
    """The frozen model in a directory, whole nowhere but on the disk: read a layer at a time."""
    stored = load_model(directory, dtype=stored_type(directory))
    assert isinstance(stored, Decoder), "others are not spread"
    kept = {name: stored.weights[name].to(device, dtype) for name in kept_names(stored)}
    return assembled(stored, kept, Layers(stored, dtype, device, world), world)


def stored_type(directory: Path) -> torch.dtype | None:
    """What to load a model as that is read piece by piece: None, as stored, which copies nothing.
    Of mixed types loading would make the embedding's, so these become fp32."""
    types = {tensor.dtype for tensor in stored_tensors(directory).values()}
    return None if len(types) == 1 else torch.float32


def assembled(
    stored: Decoder, kept: Mapping[str, Tensor], layers: Layers, world: World
) -> ShardedDecoder:
    """The decoder of what is kept whole and of layers."""
    weights = ShardedWeights(list(stored.weights), kept, layers)
    return ShardedDecoder(stored.config, weights, layers, world)


def kept_names(model: Decoder) -> list[str]:
    """The weights that stay whole."""
    return [name for name in model.weights if layer_of(name) is None]


def layer_of(name: str) -> int | None:
    """The number of the layer that a weight belongs to."""
    return int(name.split(".")[2]) if name.startswith(LAYERS) else None


def here(parameter: Any) -> Tensor:
    """What this process has of a parameter that may be spread."""
    part: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return part


def collected(world: World, part: Tensor, shape: torch.Size) -> Tensor:
    """The whole of a tensor that FSDP2 has spread by its rows, in the first process."""
    num_rows = rows_each(shape, world)
    padded = part.new_zeros(num_rows, *shape[1:])
    padded[: len(part)] = part.detach()
    flat = world.collect(padded.flatten())
    return flat[: shape.numel()].view(shape) if world.is_first else flat


def own_rows(world: World, whole: Tensor) -> Tensor:
    """The other way: this process's part of a tensor."""
    num_rows = rows_each(whole.shape, world)
    return whole[world.rank * num_rows : (world.rank + 1) * num_rows]


def rows_each(shape: torch.Size, world: World) -> int:
    """Rows in a part; the last parts may have fewer, or none."""
    return -(-shape[0] // world.size)


def _key(name: str) -> str:
    """A parameter's name in a module, which cannot have dots."""
    return name.replace(".", "/")
