"""AdamW over one flat vector, its clipping, and the learning rate's course.

All trained tensors are moved into one buffer, and their gradients into another: an update is four
operations instead of hundreds, and a checkpoint two vectors. The update itself is torch's fused
operator, called directly, because the constructor of torch.optim.AdamW imports the compiler
(0.8 s, more than a small job trains).
"""

from __future__ import annotations

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MAX_NORM = 1.0
WARMUP_STEPS = 10

# Tensors start at multiples of 64 bytes, as if each had been allocated by itself.
ALIGNMENT = 16


class AdamW:
    """Without weight decay. `parameters` become leaves whose storage belongs to this object."""

    def __init__(self, parameters: list[Tensor]) -> None:
        device, dtype = parameters[0].device, parameters[0].dtype
        sizes = [-(-p.numel() // ALIGNMENT) * ALIGNMENT for p in parameters]
        self.values, self.gradient, self._mean, self._square = (
            torch.zeros(sum(sizes), dtype=dtype, device=device) for _ in range(4)
        )
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
        torch._fused_adamw_(
            [self.values],
            [self.gradient],
            [self._mean],
            [self._square],
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
        if self._mirror is not None:
            self._mirror.copy_(self.values)

    def state(self) -> dict[str, Tensor]:
        """What a resume needs besides the parameters themselves."""
        return {
            "mean": self._mean,
            "square": self._square,
            "num_updates": self._num_updates,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self._num_updates.copy_(state["num_updates"])


def warmup_steps(total_steps: int) -> int:
    return min(WARMUP_STEPS, total_steps // 10)


def learning_rate(peak: float, step: int, total_steps: int) -> float:
    """Linear warm-up, then linear decay; `step` counts from 1 and never meets zero."""
    warmup = warmup_steps(total_steps)
    if step <= warmup:
        return peak * step / (warmup + 1)
    return peak * (total_steps - step + 1) / (total_steps - warmup)
