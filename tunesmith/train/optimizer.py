"""AdamW over one flat vector, its clipping, and the learning rate's course.

All trained tensors are moved into one buffer, and their gradients into another: an update is four
operations instead of hundreds, and a checkpoint two vectors. The update itself is torch's fused
operator, called directly, because the constructor of torch.optim.AdamW imports the compiler
(0.8 s, more than a small job trains).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.group.world import ALONE, World

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MAX_NORM = 1.0
WARMUP_STEPS = 10

# Tensors start at multiples of 64 bytes, as if each had been allocated by itself.
ALIGNMENT = 16


class AdamW:
    """Without weight decay. `parameters` become leaves whose storage belongs to this object.

    In a world of several processes each keeps the moments of its part of the vector and updates
    that part; then all get the others' (ZeRO stage 1, Rajbhandari et al. 2020).
    """

    def __init__(self, parameters: list[Tensor], world: World = ALONE) -> None:
        device, dtype = parameters[0].device, parameters[0].dtype
        sizes = [aligned(p.numel()) for p in parameters]
        self._world = world
        self._size = sum(sizes)
        part = -(-self._size // (world.size * ALIGNMENT)) * ALIGNMENT
        self._own = slice(world.rank * part, (world.rank + 1) * part)
        self.values, self.gradient = (
            torch.zeros(part * world.size, dtype=dtype, device=device) for _ in range(2)
        )
        self._mean, self._square = (torch.zeros(part, dtype=dtype, device=device) for _ in range(2))
        self._num_updates = torch.zeros((), device=device)
        self._mirror: Tensor | None = None
        self.spans: list[slice] = []
        """Where in `values` each parameter lies."""
        start = 0
        for parameter, size in zip(parameters, sizes, strict=True):
            span = slice(start, start + parameter.numel())
            self.values[span] = parameter.detach().flatten()
            self.spans.append(span)
            parameter.requires_grad_(False)
            parameter.data = self.values[span].view(parameter.shape)
            parameter.requires_grad_()
            parameter.grad = self.gradient[span].view(parameter.shape)
            start += size

    def mirror(self, dtype: torch.dtype) -> Tensor:
        """`values` in another type, which follows every update from now on."""
        self._mirror = self.values.to(dtype)
        return self._mirror

    def zero_gradient(self) -> None:
        self.gradient.zero_()

    def clip(self) -> Tensor:
        """Shrinks the gradient to norm MAX_NORM at most; returns the norm it had (a scalar)."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((MAX_NORM / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def update(self, learning_rate: float) -> None:
        self._num_updates += 1
        self._move(
            self.values[self._own],
            self.gradient[self._own],
            self._mean,
            self._square,
            learning_rate,
        )
        self._world.gather_(self.values)
        if self._mirror is not None:
            self._mirror.copy_(self.values)

    def _move(
        self, values: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, learning_rate: float
    ) -> None:
        torch._fused_adamw_(
            [values],
            [gradient],
            [mean],
            [square],
            [],
            [self._num_updates],
            lr=learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """What a resume needs besides the parameters themselves, whatever the world's size then.

        All processes have to ask; the first one gets it.
        """
        return {
            "mean": self._world.collect(self._mean)[: self._size],
            "square": self._world.collect(self._square)[: self._size],
            "num_updates": self._num_updates,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, own in (("mean", self._mean), ("square", self._square)):
            part = state[name][self._own]
            own[: len(part)].copy_(part)
        self._num_updates.copy_(state["num_updates"])


def aligned(num: int) -> int:
    """Places that a tensor of so many numbers takes in a vector."""
    return -(-num // ALIGNMENT) * ALIGNMENT


def learning_rate(peak: float, step: int, total_steps: int) -> float:
    """Linear warm-up, then linear decay; `step` counts from 1 and never meets zero."""
    warmup = min(WARMUP_STEPS, total_steps // 10)
    if step <= warmup:
        return peak * step / (warmup + 1)
    return peak * (total_steps - step + 1) / (total_steps - warmup)
