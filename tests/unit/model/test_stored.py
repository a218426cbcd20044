"""Prompts that begin, read together as on a GPU: here by torch's attention, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_base import TINY
from tests.tiny_transformers import OURS
from tunesmith.model.decoder import Decoder
from tunesmith.model.fresh import init_weights
from tunesmith.model.load import load_model
from tunesmith.model.packed import SplitAttention, _keeps_apart, packs_for
from tunesmith.model.stored import Beginnings, Part, parts_of
from tunesmith.serve.rows import BatchedRows

Saved = Callable[[str], tuple[Path, Any]]
CPU = torch.device("cpu")


def split(lengths: tuple[int, ...], device: torch.device) -> SplitAttention:
    return SplitAttention(lengths)


@torch.inference_mode()
@pytest.mark.parametrize("kind", OURS)
def test_prompts_are_read_together_as_by_themselves(kind: str, saved: Saved) -> None:
    model = load_model(saved(kind)[0])
    assert isinstance(model, Decoder)
    passes = [
        [[], [5, 6, 7], [], list(range(9, 30)), [4]],
        [[3, 4], [8], list(range(40, 52)), [1, 2], [6]],
        [[9], [10], [11], [12], [13]],
    ]
    scores = []
    for packs in (None, split):
        rows = BatchedRows(model, 8)
        rows.packs = packs
        rows.reserve(5, 40)
        for _ in range(5):
            rows.add()
        scores.append([rows.run(ids, [None] * 5) for ids in passes])
    for plain, packed in zip(*scores, strict=True):
        torch.testing.assert_close(packed, plain, atol=1e-5 * float(plain.abs().max()), rtol=1e-5)


def test_what_is_read_together() -> None:
    rows = BatchedRows(Decoder(TINY, init_weights(TINY, 0)), 8)
    rows.packs = split
    rows.reserve(7, 40)
    for _ in range(7):
        rows.add()
    rows.lengths = [0, 0, 5, 6, 0, 0, 3]
    parts = parts_of(rows, [4, 3, 1, 1, 2, 0, 2])
    assert [(type(part), part.places, len(part)) for part in parts] == [
        (Beginnings, slice(0, 7), 7),
        (Part, slice(7, 9), 2),
        (Beginnings, slice(9, 11), 2),
        (Part, slice(11, 13), 2),
    ]


def test_an_operator_is_used_where_it_reads_each_sequence_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def mixing(lengths: tuple[int, ...], device: torch.device) -> SplitAttention:
        return SplitAttention((sum(lengths),))

    def missing(lengths: tuple[int, ...], device: torch.device) -> SplitAttention:
        raise RuntimeError("no such operator")

    assert packs_for(TINY, CPU, torch.bfloat16) is None
    assert _keeps_apart(split, 4, 2, 16, CPU, torch.bfloat16)
    assert not _keeps_apart(mixing, 4, 2, 16, CPU, torch.bfloat16)
    assert "is wrong here" in caplog.text
    assert not _keeps_apart(missing, 4, 2, 16, CPU, torch.bfloat16)
    assert "no such operator" in caplog.text
