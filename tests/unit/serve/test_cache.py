"""Rows that share storage compute what each would compute alone."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.tiny_base import TINY
from tunesmith.model.decoder import Decoder
from tunesmith.model.fresh import init_weights
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.serve.cache import MIN_LENGTH, SlotCache
from tunesmith.serve.rows import BatchedRows


@pytest.fixture(scope="module")
def model() -> Decoder:
    weights = {
        name: tensor if name.endswith("norm.weight") else tensor * 4
        for name, tensor in init_weights(TINY, 0).items()
    }
    return Decoder(TINY, weights)


def adapter(model: Decoder, seed: int) -> Adapter:
    result = Adapter.create(model.linears, LoraSpec(4, 8.0), seed)
    for matrix in result.b.values():
        matrix.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return result


def alone(model: Decoder, ids: list[int], lora: Adapter | None) -> torch.Tensor:
    return model.logits(model.hidden(torch.tensor([ids]), lora=lora)[0, -1])


def random_ids(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, TINY.vocab_size, (length,), generator=generator).tolist()


@torch.inference_mode()
def test_ragged_rows_with_mixed_adapters_equal_single_rows(model: Decoder) -> None:
    """Prompts in a padded pass, in chunks, copied, moved; then decoding all of them together."""
    one, two = adapter(model, 1), adapter(model, 2)
    loras = [one, None, two, one]
    texts = [random_ids(length, length) for length in (3, 17, 9, 140)]
    rows = BatchedRows(model, max_rows=8)
    rows.reserve(5, 256)
    for _ in range(3):
        rows.add()
    got = rows.run(texts[:3], loras[:3])
    for row in range(3):
        assert torch.allclose(got[row], alone(model, texts[row], loras[row]), atol=1e-5)
    rows.add()
    for start in (0, 50, 100):
        got = rows.run([[], [], [], texts[3][start : start + 50]], loras)
    assert torch.allclose(got[0], alone(model, texts[3], one), atol=1e-5)
    # A copy of row 3 takes the place of row 0, which ends.
    rows.add(copy_of=3)
    rows.move(4, 0)
    rows.drop_last()
    texts[0] = texts[3]
    assert rows.lengths == [140, 17, 9, 140]
    for step in range(5):
        new = [random_ids(1, 100 * step + row) for row in range(4)]
        texts = [text + more for text, more in zip(texts, new, strict=True)]
        got = rows.run(new, loras)
        for row in range(4):
            assert torch.allclose(got[row], alone(model, texts[row], loras[row]), atol=1e-5)


@torch.inference_mode()
def test_growing_and_shrinking_keep_the_content(model: Decoder) -> None:
    ids = random_ids(300, 5)
    rows = BatchedRows(model, max_rows=32)
    rows.reserve(1, 10)
    rows.add()
    got = rows.run([ids[:10]], [None])
    sizes = [rows.num_bytes]
    for start, num_rows, length in ((10, 20, 11), (11, 3, 299), (299, 1, 300)):
        rows.reserve(num_rows, length)
        sizes.append(rows.num_bytes)
        got = rows.run([ids[start:length]], [None])
    assert torch.allclose(got[0], alone(model, ids, None), atol=1e-5)
    # 1 x 64; 32 x 64; far fewer rows, so 4 x 512; not worth changing.
    assert [size / sizes[0] for size in sizes] == [1, 32, 4 * 8, 4 * 8]


def cache(max_rows: int = 6) -> SlotCache:
    return SlotCache(TINY, dtype=torch.float32, device=torch.device("cpu"), max_rows=max_rows)


def test_room_doubles_up_to_the_limits() -> None:
    slots = cache()
    position = slots.bytes_for(1, MIN_LENGTH) // MIN_LENGTH
    assert position == 2 * 2 * 2 * 16 * 4
    assert slots.bytes_for(3, 65) == 4 * 128 * position
    assert slots.bytes_for(5, 1) == 6 * 64 * position
    assert slots.bytes_for(1, 1500) == 2048 * position
    assert slots.bytes_for(3, 65, tight=True) == 3 * 128 * position
    assert slots.bytes_for(3, 130, tight=True) == 3 * 192 * position


def test_reserving_takes_what_was_announced() -> None:
    slots = cache()
    for num_rows, length, tight in itertools.product((1, 2, 5), (1, 64, 100, 600), (True, False)):
        announced = slots.bytes_for(num_rows, length, tight=tight)
        slots.reserve(num_rows, length, tight=tight)
        assert slots.num_bytes == announced
        keys, values = slots.storage(0)
        held = 2 * TINY.num_layers * keys.nbytes
        assert held == announced
        assert keys.shape == values.shape
        assert keys.shape[0] >= num_rows * TINY.num_kv_heads
        assert keys.shape[1] >= length


def test_the_last_row_gives_everything_back() -> None:
    slots = cache()
    slots.reserve(2, 10)
    slots.add()
    slots.add()
    slots.drop_last()
    assert slots.num_bytes > 0
    slots.drop_last()
    assert slots.num_bytes == 0
    slots.reserve(1, 10)
    assert slots.num_bytes > 0
