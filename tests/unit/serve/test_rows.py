"""Models that run through transformers answer through the same engine, a row at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine_harness import greedy, reference, running_engine, save_adapter
from tunesmith.serve.protocol import Done


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
