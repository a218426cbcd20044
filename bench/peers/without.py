"""What each technique of the trainer is worth: the same step without it, by name.

`python bench/train.py --ablate` runs them in turns. Each puts what torch or autograd would do by
itself in the place of what the trainer does; the loss stays the same, but for the last two, which
leave work out to show what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tunesmith.model import decoder, fixed, learning, memory, passes, rotation
from tunesmith.model.lora import Adapter
from tunesmith.train import attention, batches, loss, step
from tunesmith.train.batches import Corpus, MicroBatch


def packing() -> None:
    """A grid of one sequence a line, padded to the longest."""
    attention.choose = lambda model: ("padded", None)
    sharing()


def gathering() -> None:
    """Every position goes through the head, not only those whose next token counts."""
    plain = batches.pack

    def pack(corpus: Corpus, sequences: Any, share: bool = False) -> MicroBatch:
        row = plain(corpus, sequences)
        parts = [corpus.tokens(sequence) for sequence in row.sequences]
        return replace(
            row,
            counts_S=torch.tensor(row.lengths),
            index_N=torch.arange(sum(row.lengths)),
            targets_N=torch.cat([ids[1:] for ids, _ in parts]).long(),
            weights_N=torch.cat([weights[1:] for _, weights in parts]),
        )

    batches.pack = pack


def leaving_out() -> None:
    """All positions go through all of the last layer, wanted or not."""
    plain = step.hidden
    step.hidden = lambda *given, places_N, **how: plain(*given, **how)[places_N]


def sharing() -> None:
    """Beginnings that sequences have in common are computed for each of them."""
    step.Forward.shares = False


def head_in_blocks() -> None:
    """A frozen head read in chunks of positions, as a trained one is."""
    loss.Head.in_blocks = lambda head, hidden_NE: None


def chunks() -> None:
    """All logits at once, through autograd."""
    loss.CHUNK_ELEMENTS["cpu"] = 1 << 60
    head = step.Forward.head.fget
    assert head is not None
    step.Forward.head = property(lambda forward: replace(head(forward), plain=None))


def fixed_point() -> None:
    """Frozen weights are multiplied in fp32."""
    fixed.library = lambda: None


def compiled() -> None:
    """Attention, gate, norm and rotation by torch."""
    learning.use(False)


def kept_memory() -> None:
    """What is freed goes back to the system at once."""
    memory.keep_freed_memory = lambda: None


def fused_products() -> None:
    """Base and adapter as products of their own, learned from by autograd."""
    Adapter._is_learnt_whole = lambda adapter, names: False


def gate_again() -> None:
    """What the gate lets through is kept for the backward pass."""

    def adapt_gated(
        adapter: Adapter, name: str, gate: Tensor, up: Tensor, kind: str, products: Any
    ) -> Tensor:
        return adapter.adapt((name,), decoder.activated(gate, kind) * up, products)[0]

    Adapter.adapt_gated = adapt_gated


def norm_again() -> None:
    """What a norm formed is kept for the backward pass."""

    def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed = passes.rms_norm(x, weight, eps)
        return normed.view_as(normed)

    decoder.rms_norm = norm


def hand_written() -> None:
    """Norm and rotation learned from by autograd."""

    def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return weight * wide.to(x.dtype)

    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    decoder.rms_norm, rotation.turn = norm, turn


def attention_itself() -> None:
    """Every position reads its own value: the cost of attention, not a way to do without."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Any) -> Tensor:
        return v.repeat_interleave(q.shape[2] // v.shape[2], 2)

    attention.PackedAttention = lambda *given: attend
    attention.choose = lambda model: ("split", None)


def head_itself() -> None:
    """A head of 64 tokens: the cost of the vocabulary, not a way to do without."""
    plain = batches.pack

    def pack(corpus: Corpus, sequences: Any, share: bool = False) -> MicroBatch:
        row = plain(corpus, sequences, share=share)
        return replace(row, targets_N=row.targets_N % 64)

    batches.pack = pack
    head = step.Forward.head.fget
    assert head is not None

    def small(forward: step.Forward) -> loss.Head:
        found = head(forward)
        assert found.plain is not None
        matrix = found.plain[:64]
        return replace(
            found, logits=lambda x: x @ matrix.T, vocab_size=64, plain=matrix, fixed=None
        )

    step.Forward.head = property(small)


TECHNIQUES: dict[str, Callable[[], None]] = {
    "packing": packing,
    "sharing beginnings": sharing,
    "leaving out what nothing is read from": leaving_out,
    "gathering before the head": gathering,
    "reading a frozen head in blocks of the vocabulary": head_in_blocks,
    "chunked head, gradient in its forward pass": chunks,
    "fixed point": fixed_point,
    "C": compiled,
    "keeping freed memory": kept_memory,
    "base and adapter in one product": fused_products,
    "forming the gated product again": gate_again,
    "forming normed inputs again": norm_again,
    "norm and rotation by hand": hand_written,
    "attention (its cost)": attention_itself,
    "head (its cost)": head_itself,
}
