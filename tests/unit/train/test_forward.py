"""Ways to need less memory change no bit of what is learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainer_job import tiny_base
from tunesmith.data.render import Example
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.train.batches import Corpus
from tunesmith.train.forecast import kept_bytes
from tunesmith.train.objective import Supervised
from tunesmith.train.optimizer import AdamW
from tunesmith.train.step import Forward, accumulate, seed_step

LENGTHS = (20, 33, 12, 12)


def random_rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(512, (n,), generator=generator).tolist() for n in LENGTHS]


def gradient(
    forward: Forward,
    dropout: float,
    max_tokens: int = 2048,
    rows: list[list[int]] | None = None,
) -> Tensor:
    corpus = Corpus(
        Example(ids, [0.0, *[1.0] * (len(ids) - 1)], number)
        for number, ids in enumerate(rows or random_rows(), 1)
    )
    adapter = Adapter.create(forward.model.linears, LoraSpec(4, 8.0, dropout), 0)
    generator = torch.Generator().manual_seed(2)
    for matrix in adapter.b.values():
        matrix.normal_(std=0.1, generator=generator)
    dtype = torch.promote_types(forward.model.dtype, torch.float32)
    for side in (adapter.a, adapter.b):
        side.update({name: matrix.to(dtype) for name, matrix in side.items()})
    optimizer = AdamW(adapter.train().parameters())
    seed_step(0, 1)
    accumulate(forward, adapter, optimizer, Supervised(corpus), range(corpus.num_rows), max_tokens)
    assert optimizer.gradient.any()
    return optimizer.gradient


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("way", [{"recompute": True}, {"offload": True}])
def test_the_gradient_is_the_same_to_the_bit(way: dict[str, bool], dropout: float) -> None:
    plain = Forward(load_model(tiny_base()), "split")
    assert torch.equal(gradient(replace(plain, **way), dropout), gradient(plain, dropout))


def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    forward = Forward(load_model(tiny_base(), dtype=torch.float64), "split")
    whole = gradient(forward, 0.0)
    assert whole.dtype == torch.float64
    for max_tokens in (1, 30, 40):
        assert (gradient(forward, 0.0, max_tokens) - whole).abs().max() <= 1e-12


def test_beginnings_computed_once_give_the_gradient_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = Forward(load_model(tiny_base(), dtype=torch.float64), "split")
    rows = [list(range(20)), [*range(8), *range(40, 60)], list(range(12)), list(range(20))]
    shared = gradient(forward, 0.0, rows=rows)
    monkeypatch.setattr(Forward, "shares", False)
    assert (shared - gradient(forward, 0.0, rows=rows)).abs().max() <= 1e-12


def test_computing_layers_twice_keeps_less() -> None:
    plain = Forward(load_model(tiny_base()), "split")
    adapter = Adapter.create(plain.model.linears, LoraSpec(4, 8.0), 0).train()
    whole, less = kept_bytes(plain, adapter), kept_bytes(replace(plain, recompute=True), adapter)
    # Per layer and token: about six numbers of the width, and two of the inner width.
    assert 2 * 4 * (5 * 64 + 2 * 128) < whole < 2 * 4 * (8 * 64 + 3 * 128)
    assert less < 0.7 * whole
