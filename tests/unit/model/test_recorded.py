"""Steps that a GPU would record: computed in the same form on a CPU, where nothing is recorded."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_transformers import OURS
from tunesmith.model import recorded
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.model.recorded import Recorder
from tunesmith.serve.rows import BatchedRows

Saved = Callable[[str], tuple[Path, Any]]


def adapter(model: Decoder, seed: int, rank: int = 4) -> Adapter:
    made = Adapter.create(model.linears, LoraSpec(rank, 2.0 * rank), seed)
    for matrix in made.b.values():
        matrix.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    return made.to(torch.float32)


def filled(model: Decoder, lengths: list[int]) -> BatchedRows:
    rows = BatchedRows(model, 8)
    rows.reserve(len(lengths), 60)
    for _ in lengths:
        rows.add()
    ids = [list(range(3, 3 + length)) for length in lengths]
    rows.run(ids, [None] * len(lengths))
    return rows


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "WORTHWHILE_STEPS", 2)


@torch.inference_mode()
@pytest.mark.parametrize("kind", OURS)
@pytest.mark.usefixtures("at_once")
def test_they_give_the_same_scores(kind: str, saved: Saved) -> None:
    model = load_model(saved(kind)[0])
    assert isinstance(model, Decoder)
    loras = [adapter(model, 1), adapter(model, 2, 8)]
    plain, other = filled(model, [5, 17, 30]), filled(model, [5, 17, 30])
    other._recorder = recorder = Recorder(model)
    num_recorded = 0
    for step in range(24):
        if step == 6:  # one leaves
            for rows in (plain, other):
                rows.move(2, 1)
                rows.drop_last()
        if step == 12:  # two join, and the storage grows
            for rows in (plain, other):
                rows.reserve(4, 60)
                rows.add()
                rows.add()
                rows.run([[], [], [4, 5], [9]], [None] * 4)
        num = len(plain.lengths)
        adapters = [None] * num
        if step % 12 >= 4:
            adapters = [loras[(row + step // 2) % 2] if row else None for row in range(num)]
        ids = [[7 + step + row] for row in range(num)]
        expected, found = plain.run(ids, adapters), other.run(ids, adapters)
        limit = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(found, expected, atol=limit, rtol=1e-5)
        assert plain.lengths == other.lengths
        num_recorded += recorder._recorded is not None
    assert num_recorded > 12


@torch.inference_mode()
@pytest.mark.usefixtures("at_once")
def test_a_recording_keeps_neither_keys_nor_adapters_alive(
    saved: Saved,
) -> None:
    model = load_model(saved("llama")[0])
    assert isinstance(model, Decoder)
    rows, lora = filled(model, [3]), adapter(model, 1)
    rows._recorder = Recorder(model)
    for _ in range(4):
        rows.run([[5]], [lora])
    assert rows._recorder._recorded is not None
    gone = [weakref.ref(rows._layers[0][0]), weakref.ref(lora)]
    stacked = [weakref.ref(a) for a, _ in rows._stack.stacked.values()]
    del lora
    rows.reserve(4, 200)
    rows._stack.clear()
    gc.collect()
    assert [each() for each in [*gone, *stacked]] == [None] * (2 + len(stacked))
    rows.run([[5]], [None])


@torch.inference_mode()
@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_recorded_is_computed_and_said_once(
    saved: Saved,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = load_model(saved("llama")[0])
    assert isinstance(model, Decoder)
    rows = filled(model, [3, 4])
    rows._recorder = Recorder(model)

    def fail(self: recorded.RecordedStep) -> None:
        raise RuntimeError("no memory for it")

    monkeypatch.setattr(recorded.RecordedStep, "_record", fail)
    for _ in range(6):
        assert rows.run([[5], [6]], [None, None]).shape == (2, model.vocab_size)
    assert caplog.text.count("no memory for it") == 1
    assert rows.lengths == [9, 10]
