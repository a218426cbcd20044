"""The same bits for the same text, in whatever company and pieces it is computed.

Of a trained model, whose scores are not all alike, on a CPU, in fp32 and with weights of 16 and 8
bits.
"""

from __future__ import annotations

import pytest
import torch

from tunesmith.bases import embedded_directory
from tunesmith.model import native, products
from tunesmith.model.frozen import FrozenDecoder, freeze
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.serve.rows import BatchedRows

NUM_STEPS = 4


@pytest.fixture(scope="module", params=["bf16", "fp32", "fp32 by torch", "int8"])
def rows(request: pytest.FixtureRequest) -> BatchedRows:
    kind = request.param
    if kind == "bf16" and native.library() is None:
        pytest.skip("there is no C compiler here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "WORTHWHILE_INT8", 0)
        if kind == "fp32 by torch":
            patch.setattr(native, "library", lambda: None)
        stored = load_model(embedded_directory(), dtype=None if kind == "bf16" else torch.float32)
        model = freeze(stored, int8=kind == "int8", in_fp32=True)
        assert isinstance(model, FrozenDecoder)
        assert (model.products == "int8") == (kind == "int8")
        assert (model.products == "native") == (kind == "bf16")
        result = BatchedRows(model, 32)
    result.reserve(32, 1024)
    return result


@pytest.fixture(scope="module")
def adapters(rows: BatchedRows) -> list[Adapter]:
    return [adapter(rows, seed, rank) for seed, rank in enumerate((16, 8, 16, 4, 16))]


def adapter(rows: BatchedRows, seed: int, rank: int) -> Adapter:
    made = Adapter.create(rows._model.linears, LoraSpec(rank, 2.0 * rank), seed)
    for matrix in made.b.values():
        matrix.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
    return made.to(torch.float32)


def text(length: int) -> list[int]:
    return torch.randint(
        5, 4000, (length,), generator=torch.Generator().manual_seed(length)
    ).tolist()


def alone(rows: BatchedRows, ids: list[int], lora: Adapter | None, *pieces: int) -> torch.Tensor:
    """Scores after the last `NUM_STEPS` ids, those before them computed in pieces."""
    rows.reserve(1, 1024)
    rows.add()
    start, found = 0, []
    for size in (*pieces, *[1] * NUM_STEPS):
        found.append(rows.run([ids[start : start + size]], [lora])[0])
        start += size
    rows.drop_last()
    assert start == len(ids)
    return torch.stack(found[-NUM_STEPS:])


@torch.inference_mode()
@pytest.mark.parametrize("length", [5, 33, 130, 600])
def test_pieces_of_a_prompt_change_no_bit(
    rows: BatchedRows, adapters: list[Adapter], length: int
) -> None:
    ids = text(length + NUM_STEPS)
    for lora in (None, adapters[0]):
        whole = alone(rows, ids, lora, length)
        for size in (1 if length < 100 else 90, 7 if length < 300 else 128, 32, 64):
            pieces = [min(size, length - start) for start in range(0, length, size)]
            assert torch.equal(alone(rows, ids, lora, *pieces), whole), size


@torch.inference_mode()
@pytest.mark.parametrize("num_rows", [2, 9, 20])
def test_company_changes_no_bit(rows: BatchedRows, adapters: list[Adapter], num_rows: int) -> None:
    """Rows of all lengths and adapters, half of them a step ahead of the others' prompts."""
    loras = [None if row % 6 == 5 else adapters[row % 6] for row in range(num_rows)]
    texts = [text(30 + 37 * row % 400 + NUM_STEPS) for row in range(num_rows)]
    expected = [
        alone(rows, ids, lora, len(ids) - NUM_STEPS) for ids, lora in zip(texts, loras, strict=True)
    ]
    rows.reserve(num_rows, 700)
    for _ in texts:
        rows.add()
    found: list[list[torch.Tensor]] = [[] for _ in texts]
    for step in range(NUM_STEPS + 2):
        new = []
        for row, ids in enumerate(texts):
            first, begun = len(ids) - NUM_STEPS, step - row % 2
            new.append(ids[:first] if begun == 0 else ids[first:][begun - 1 : max(begun, 0)])
        computed = [row for row, ids in enumerate(new) if ids]
        for row, scores in zip(computed, rows.run(new, loras), strict=True):
            found[row].append(scores)
    for _ in texts:
        rows.drop_last()
    for row, scores in enumerate(expected):
        assert torch.equal(torch.stack(found[row][-NUM_STEPS:]), scores), row


@torch.inference_mode()
def test_a_kept_beginning_is_as_good_as_a_computed_one(rows: BatchedRows) -> None:
    ids = text(300)
    computed = alone(rows, ids, None, 300 - NUM_STEPS)
    # What was decoded is kept, too: a chat goes on from there.
    rows.reserve(2, 1024)
    rows.add()
    rows.run([ids[:200]], [None])
    for token in ids[200:256]:
        rows.run([[token]], [None])
    kept = rows.read(0, 0, 256)
    rows.add()
    rows.write(1, kept)
    found = [rows.run([[], ids[256 : 300 - NUM_STEPS]], [None] * 2)[0]]
    found += [rows.run([[], [token]], [None] * 2)[0] for token in ids[300 - NUM_STEPS :]]
    rows.drop_last()
    rows.drop_last()
    assert torch.equal(torch.stack(found[1:]), computed)
