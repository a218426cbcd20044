"""What a job will take, said before its first step: memory at the peak, tokens a step, seconds.

Memory is counted on the loaded model: what a short forward pass keeps for its backward pass, a
token. Time is that of a few rows, which go through before anything is learned (loop.py). How far
off it was is told at the end of the job.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from tunesmith.data.estimate import duration
from tunesmith.group.sharded import here
from tunesmith.model.decoder import Decoder
from tunesmith.model.memory import available_bytes, peak_bytes
from tunesmith.train import loss
from tunesmith.train.batches import Corpus, one_sequence
from tunesmith.train.full import FullWeights
from tunesmith.train.plan import Plan
from tunesmith.train.step import Forward, Trained

PROBE_TOKENS = 32
# The part of the free memory that activations may take.
MEMORY_SHARE = 0.5
# What a step needs beside what it keeps: gradients on their way, and memory that lies in pieces.
OVERHEAD = 1.4


@dataclass(frozen=True)
class Forecast:
    peak_bytes: int
    tokens_per_step: int
    """In the mean."""
    seconds: float = math.nan
    """Known when a step was tried."""

    def text(self) -> str:
        """For the user."""
        return (
            f"Expected: {self.tokens_per_step:,} tokens a step, about {duration(self.seconds)} in "
            f"all, {self.peak_bytes / 1e9:.2f} GB of memory at the peak"
        )

    def compared(self, seconds: float, device: torch.device) -> tuple[str, dict[str, float]]:
        """What came of it, in words and as figures."""
        peak = peak_bytes(device)
        text = (
            f"Took {duration(seconds)} ({duration(self.seconds)} expected) and "
            f"{peak / 1e9:.2f} GB at the peak ({self.peak_bytes / 1e9:.2f} expected)"
        )
        expected = {f"expected_{name}": float(value) for name, value in asdict(self).items()}
        return text, {**expected, "seconds": seconds, "peak_bytes": float(peak)}


def forecast(
    plan: Plan, forward: Forward, trained: Trained, corpus: Corpus, longest: int, used_bytes: int
) -> Forecast:
    """`longest`: positions that go through at once; `used_bytes`: held before the model came."""
    model = forward.model
    num_tokens = plan.n_epochs * corpus.num_tokens(range(corpus.num_rows))
    tokens_per_step = num_tokens // plan.total_steps
    at_once = max(longest, min(plan.micro_tokens, tokens_per_step // plan.processes))
    share = plan.n_epochs * corpus.num_supervised(range(corpus.num_rows)) / num_tokens
    kept = kept_bytes(forward, trained) * at_once * OVERHEAD
    held = _held_bytes(forward, trained) + loss.chunk_bytes(
        forward.head, model.dtype, model.device, int(at_once * share)
    )
    return Forecast(int(used_bytes + held + kept), tokens_per_step)


def fit_memory(plan: Plan, forward: Forward, trained: Trained, longest: int) -> Plan:
    """The plan with a micro-batch that should fit into the memory the model left.

    Where the longest sequence does not, layers are recomputed: slower by a third, much smaller.
    """
    fitting = num_fitting(forward, trained)
    if fitting < longest and not forward.model.slow:
        plan = replace(plan, recompute=True)
        fitting = num_fitting(replace(forward, recompute=True), trained)
    return replace(plan, micro_tokens=max(1, min(plan.micro_tokens, fitting)))


def num_fitting(forward: Forward, trained: Trained) -> int:
    """About how many positions each process can learn at once in the memory that is free now."""
    per_token = kept_bytes(forward, trained) * OVERHEAD
    # On a CPU the processes of a job share it.
    sharing = forward.world.size if forward.model.device.type == "cpu" else 1
    free_bytes = available_bytes(forward.model.device) / sharing
    return forward.world.least(int(MEMORY_SHARE * free_bytes / per_token))


def kept_bytes(forward: Forward, trained: Trained) -> float:
    """What one token keeps until the backward pass, beside weights and what is trained."""
    model = forward.model
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if forward.spread is None or not forward.spread.is_fetched(tensor):
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = one_sequence(PROBE_TOKENS, model.vocab_size).to(model.device)
    plain = replace(forward, recompute=False, offload=False)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        plain.supervised(batch, trained)
    for tensor in (*_kept(forward), *map(here, trained.parameters())):
        seen.pop(tensor.untyped_storage().data_ptr(), None)
    per_token = sum(seen.values()) / PROBE_TOKENS
    if not forward.recompute:
        return per_token
    # One layer at a time, and the input of each.
    num_layers = model.config.num_layers if isinstance(model, Decoder) else 1
    return per_token / num_layers + num_layers * model.hidden_size * model.dtype.itemsize


def _held_bytes(forward: Forward, trained: Trained) -> int:
    """Weights, and four vectors of what is trained: values, gradient and AdamW's two."""
    parameters = [here(parameter) for parameter in trained.parameters()]
    if isinstance(trained, FullWeights):
        own = {p.untyped_storage().data_ptr() for p in parameters}
        others = (w for w in _kept(forward) if w.untyped_storage().data_ptr() not in own)
        frozen = sum(w.nbytes for w in others)
    else:
        frozen = forward.model.num_bytes
    return frozen + 4 * sum(p.nbytes for p in parameters)


def _kept(forward: Forward) -> Collection[Tensor]:
    """The model's weights that lie in memory as they are read, where they do not come and go."""
    if forward.spread is not None:
        return ()
    model = forward.model
    return model.kept_weights if isinstance(model, Decoder) else model.weights.values()
