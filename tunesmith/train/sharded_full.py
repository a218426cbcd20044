"""Full fine-tuning of a model whose layers are spread: weights, gradients and moments in parts.

What is outside of layers is trained as in full.py. The first process puts a checkpoint together: it
has the form, and the moments the order, that one process writes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tunesmith.group.sharded import (
    Layers,
    assembled,
    collected,
    here,
    kept_names,
    layer_of,
    own_rows,
)
from tunesmith.group.world import World
from tunesmith.model.decoder import Decoder
from tunesmith.train.full import FullWeights
from tunesmith.train.optimizer import MAX_NORM, AdamW, aligned


class ShardedFullWeights(FullWeights):
    def __init__(self, start: Decoder, dtype: torch.dtype, device: str, world: World) -> None:
        """`start` may lie on the CPU in any type: it is read a layer at a time."""
        self.training = True
        self._world = world
        layers = Layers(start, torch.float32, device, world, compute=dtype)
        kept = {
            name: start.weights[name].detach().to(device, torch.float32)
            for name in kept_names(start)
        }
        self.masters = {
            name: kept[name] if name in kept else layers.part(name) for name in start.weights
        }
        self.optimizer: PartAdamW = PartAdamW(self.masters, world)
        weights: Mapping[str, Tensor] = kept
        if dtype != torch.float32:
            weights = self._copies(kept, self.optimizer.mirror(dtype))
        self.model = assembled(start, weights, layers, world)

    def whole(self) -> Mapping[str, Tensor]:
        return {
            name: collected(self._world, here(weight), weight.shape)
            if layer_of(name) is not None
            else weight
            for name, weight in self.masters.items()
        }


class PartAdamW(AdamW):
    """Of weights by name, in the model's order; what layers have of them are parts."""

    def __init__(self, weights: Mapping[str, Tensor], world: World) -> None:
        parts = {name: weight for name, weight in weights.items() if layer_of(name) is not None}
        kept = {name: weight for name, weight in weights.items() if name not in parts}
        super().__init__(list(kept.values()), world)
        self._parts = parts
        self._moments = {
            key: {name: torch.zeros_like(here(part).detach()) for name, part in parts.items()}
            for key in ("mean", "square")
        }
        self._kept_spans = dict(zip(kept, self.spans, strict=True))
        self._all_spans: dict[str, slice] = {}
        """Where in the vectors of a checkpoint each weight lies."""
        start = 0
        for name, weight in weights.items():
            self._all_spans[name] = slice(start, start + weight.numel())
            start += aligned(weight.numel())
        self._num_all = start

    def zero_gradient(self) -> None:
        super().zero_gradient()
        for part in self._parts.values():
            part.grad = None

    def clip(self) -> Tensor:
        gradients = [here(part.grad) for part in self._parts.values()]
        squares = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        norm = (self._world.sum_(squares) + self.gradient.square().sum()).sqrt()
        factor = (MAX_NORM / (norm + 1e-6)).clamp(max=1.0)
        for gradient in (self.gradient, *gradients):
            gradient.mul_(factor)
        return norm

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        super().update(learning_rate)
        for name, part in self._parts.items():
            mean, square = (own[name] for own in self._moments.values())
            self._move(here(part), here(part.grad), mean, square, learning_rate)

    def state(self) -> dict[str, Tensor]:
        state = super().state()
        return state | {key: self._joined(state[key], own) for key, own in self._moments.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        kept = {key: torch.zeros(self._size) for key in self._moments}
        for key, own in self._moments.items():
            for name, span in self._kept_spans.items():
                kept[key][span] = state[key][self._all_spans[name]]
            for name, part in own.items():
                whole = state[key][self._all_spans[name]].view(self._parts[name].shape)
                part.copy_(own_rows(self._world, whole))
        super().load_state(state | kept)

    def _joined(self, kept: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        """The vector of a checkpoint, in the first process; all have to ask."""
        vector = kept.new_zeros(self._num_all if self._world.is_first else 0)
        for name, span in self._all_spans.items():
            if name in own:
                found = collected(self._world, own[name], self._parts[name].shape)
            else:
                found = kept[self._kept_spans[name]]
            if self._world.is_first:
                vector[span] = found.flatten()
        return vector
