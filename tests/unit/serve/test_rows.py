"""Families other than the plain one through the engine; the slow path, a row at a time."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from tests.engine_harness import greedy, reference, running_engine, save_adapter
from tests.tiny_transformers import OURS, build
from tunesmith.model import native
from tunesmith.model.frozen import FrozenDecoder, freeze
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.serve.protocol import Done
from tunesmith.serve.rows import rows_of


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.5
    )
    directory = tmp_path_factory.mktemp("gpt2")
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


def test_the_slow_path_equals_the_definition(gpt2: Path, tmp_path: Path) -> None:
    adapter = save_adapter(gpt2, tmp_path / "adapter", 1)
    requests = [
        greedy(gpt2, [5, 6, 7], 8, n=2),
        greedy(gpt2, list(range(10, 90)), 6, adapter=adapter, n=3),
        greedy(gpt2, [9], 10),
    ]
    with running_engine(max_batch=4) as harness:
        tickets = [harness.submit(request) for request in requests]
        answers = harness.wait(*tickets)
        [base] = harness.stats()["bases"]
    assert base["slow"]
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer.end, Done), answer.end
        for index in range(request.n):
            assert answer.ids[index] == reference(gpt2, request)


@pytest.fixture(scope="module")
def phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows of 16; rotated by other factors from 33 positions on."""
    directory = tmp_path_factory.mktemp("phi3")
    build("phi3-long", sliding_window=16).save_pretrained(directory)
    return directory


def test_an_answer_that_outgrows_the_short_factors_equals_the_definition(
    phi3: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(phi3, tmp_path / "adapter", 1)
    requests = [
        greedy(phi3, list(range(5, 25)), 40, n=3),
        greedy(phi3, list(range(3, 35)), 5, adapter=adapter),
        greedy(phi3, list(range(3, 40)), 20, n=2),
        greedy(phi3, [4], 33),
        # The last of these begins while the others are past the border.
        greedy(phi3, [7], 12),
        greedy(phi3, list(range(60, 88)), 20, n=6),
    ]
    with running_engine(max_batch=4) as harness:
        tickets = [harness.submit(request) for request in requests]
        answers = harness.wait(*tickets)
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer.end, Done), answer.end
        for index in range(request.n):
            assert answer.ids[index] == reference(phi3, request)


@pytest.mark.parametrize("kind", ["mistral-window", "gemma2", "gemma3"])
def test_windows_and_caps_are_served_as_trained(kind: str, tmp_path: Path) -> None:
    build(kind).save_pretrained(tmp_path)
    requests = [greedy(tmp_path, list(range(3, 3 + n)), 30) for n in (1, 12, 40)]
    with running_engine() as harness:
        answers = harness.wait(*[harness.submit(request) for request in requests])
    for request, answer in zip(requests, answers, strict=True):
        assert answer.ids[0] == reference(tmp_path, request)


@torch.inference_mode()
@pytest.mark.parametrize("kind", OURS)
def test_a_base_in_bf16_computes_what_its_weights_say(kind: str, tmp_path: Path) -> None:
    """Prompts in pieces, then single ids, with an adapter for some: as the whole text in fp32."""
    build(kind).to(torch.bfloat16).save_pretrained(tmp_path)
    wide = load_model(tmp_path, dtype=torch.float32)
    made = freeze(load_model(tmp_path), in_fp32=True)
    assert isinstance(made, FrozenDecoder)
    lora = Adapter.create(wide.linears, LoraSpec(4, 8.0), 0)
    for matrix in lora.b.values():
        matrix.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    lora = lora.to(torch.float32)
    rows, adapters = rows_of(made, 3), [None, lora, lora]
    texts = [list(range(3, 3 + num)) for num in (7, 19, 24)]
    rows.reserve(3, 40)
    for _ in texts:
        rows.add()
    rows.run([texts[0][:1], [], texts[2][:9]], adapters)
    rows.run([[], texts[1][:-3], texts[2][9:-3]], adapters)
    rows.run([texts[0][1:-3], [], []], adapters)
    for at in (-3, -2, -1):
        found = rows.run([[text[at]] for text in texts], adapters)
    for row, (text, adapter) in enumerate(zip(texts, adapters, strict=True)):
        hidden = wide.hidden(torch.tensor([text]), lora=adapter)
        expected = wide.logits(hidden[0, -1:])[0]
        limit = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(found[row], expected, atol=limit, rtol=1e-4)


@torch.inference_mode()
def test_rows_keep_no_adapter_alive_that_none_of_them_has(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    made = freeze(load_model(tmp_path, dtype=torch.float32))
    rows = rows_of(made, 1)
    rows.reserve(1, 8)
    rows.add()
    lora = Adapter.create(made.linears, LoraSpec(4, 8.0), 0).to(torch.float32)
    rows.run([[5]], [lora])
    gone = weakref.ref(lora)
    del lora
    rows.run([[5]], [None])
    assert gone() is None


# Heads are turned in part, or there are more norms.
APART = {"phi3-long", "gemma2", "gemma3"}


@torch.inference_mode()
@pytest.mark.parametrize("kind", OURS)
@pytest.mark.skipif(native.library() is None, reason="there is no C compiler here")
def test_layers_in_one_call_are_the_same_bits(kind: str, tmp_path: Path) -> None:
    build(kind).to(torch.bfloat16).save_pretrained(tmp_path)
    joined, parts = (freeze(load_model(tmp_path), in_fp32=True) for _ in range(2))
    assert isinstance(joined, FrozenDecoder) and isinstance(parts, FrozenDecoder)
    assert (joined._joined is None) == (kind in APART)
    parts._joined = None
    lora = Adapter.create(parts.linears, LoraSpec(4, 8.0), 0)
    for matrix in lora.b.values():
        matrix.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    lora = lora.to(torch.float32)
    passes = [
        [[5], [], []],
        [[6], [], list(range(40, 52))],
        [[], list(range(9, 30)), []],
        [[7], [8], [9]],
        [list(range(3, 9)), [], [4]],
    ]
    for adapters in ([None] * 3, [None, lora, lora]):
        scores = []
        for model in (joined, parts):
            rows = rows_of(model, 3)
            rows.reserve(3, 40)
            for _ in range(3):
                rows.add()
            scores.append([rows.run(ids, adapters) for ids in passes])
        for left, right in zip(*scores, strict=True):
            assert torch.equal(left, right)
