"""What is kept of earlier texts: found by all that it depends on, and answers are as without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.engine_harness import Answer, greedy, reference, running_engine, save_adapter
from tests.tiny_base import NANO, TINY
from tests.tiny_transformers import build
from tunesmith.serve.prefix import BLOCK, Origin, PrefixCache
from tunesmith.serve.protocol import Done

POSITION = 2 * 3 * 2 * 4 * 4
HERE = Origin("base", None, "")


def rows(start: int, stop: int) -> Tensor:
    """(2 x 3 layers, 2 heads, positions, 4): each value says which position it is of."""
    return torch.arange(start, stop).float()[:, None].expand(6, 2, -1, 4)


def keep(cache: PrefixCache, ids: list[int], origin: Origin = HERE) -> None:
    cache.keep(origin, ids, rows, POSITION)


def num_found(cache: PrefixCache, ids: list[int], origin: Origin = HERE) -> int:
    blocks = cache.find(origin, ids)
    if blocks:
        assert torch.equal(torch.cat(blocks, dim=2), rows(0, len(blocks) * BLOCK))
    return len(blocks) * BLOCK


def unbounded() -> PrefixCache:
    return PrefixCache(1 << 30, room=lambda: 1 << 30)


def test_texts_that_begin_alike_share_blocks() -> None:
    cache = unbounded()
    one, two = list(range(100)), [*range(70), *range(500, 600)]
    keep(cache, one)
    assert cache.num_bytes == 3 * BLOCK * POSITION
    assert num_found(cache, two) == 64
    keep(cache, two)
    assert cache.num_bytes == 6 * BLOCK * POSITION
    assert num_found(cache, [*two, 1, 2]) == 160
    # The scores after the last id have to be computed, so it is never found.
    assert num_found(cache, one[:64]) == 32
    assert num_found(cache, one[:65]) == 64


@pytest.mark.parametrize(
    "other",
    [
        Origin("other", None, ""),
        Origin("base", "adapter", ""),
        Origin("base", None, "tenant"),
        Origin("base", None, "", outgrown=True),
    ],
)
def test_other_origins_share_nothing(other: Origin) -> None:
    cache = unbounded()
    ids = list(range(100))
    keep(cache, ids)
    assert num_found(cache, ids, other) == 0
    keep(cache, ids, other)
    assert num_found(cache, ids, other) == 96
    cache.forget(base=other.base, adapter=other.adapter)
    assert num_found(cache, ids, other) == 0


def test_the_longest_unused_goes_and_the_ends_of_texts_first() -> None:
    cache = PrefixCache(5 * BLOCK * POSITION, room=lambda: 1 << 30)
    one, two = list(range(96)), list(range(1000, 1064))
    keep(cache, one)
    keep(cache, two)
    assert num_found(cache, [*one, 0]) == 96
    keep(cache, list(range(2000, 2064)))
    assert num_found(cache, [*two, 0]) == 0
    keep(cache, list(range(3000, 3064)))
    assert num_found(cache, [*one, 0]) == 32
    assert cache.num_bytes == 5 * BLOCK * POSITION
    # Longer than all there is room for: its beginning is kept.
    keep(cache, list(range(4000, 4500)))
    assert num_found(cache, list(range(4000, 4500))) == 5 * BLOCK
    cache.evict(1)
    assert num_found(cache, list(range(4000, 4500))) == 4 * BLOCK
    cache.evict(1 << 30)
    assert cache.num_bytes == 0


def test_nothing_is_kept_where_memory_is_taken() -> None:
    free = 2 * BLOCK * POSITION
    cache = PrefixCache(1 << 30, room=lambda: free - cache.num_bytes)
    keep(cache, list(range(64)))
    assert cache.num_bytes == free
    keep(cache, list(range(100, 164)))
    assert cache.num_bytes == free
    assert num_found(cache, list(range(100, 165))) == 64
    free = 0
    keep(cache, list(range(200, 264)))
    assert cache.num_bytes == 0


def num_cached(answer: Answer) -> int:
    assert isinstance(answer.end, Done), answer.end
    return answer.end.cached_tokens


def test_a_chat_goes_on_from_its_last_answer(base: Path) -> None:
    first = greedy(base, [20 + i % 300 for i in range(150)], 50)
    with running_engine() as harness:
        answer = harness.ask(first)
        assert num_cached(answer) == 0
        second = greedy(base, [*first.prompt_ids, *answer.ids[0], *range(30, 45)], 20, n=3)
        again = harness.ask(second)
        stats = harness.stats()
    assert num_cached(again) == 199 // BLOCK * BLOCK
    assert stats["num_cached_tokens"] == 192
    assert stats["kept_bytes"] == 234 // BLOCK * BLOCK * position_bytes()
    for index in range(3):
        assert again.ids[index] == reference(base, second)


def position_bytes() -> int:
    return 2 * TINY.num_layers * TINY.num_kv_heads * TINY.head_dim * 4


def test_adapters_and_tenants_have_their_own(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", 1)
    ids = [20 + i % 300 for i in range(100)]
    plain, tuned = greedy(base, ids, 5), greedy(base, ids, 5, adapter=adapter)
    salted = greedy(base, ids, 5, cache_salt="another")
    with running_engine() as harness:
        for request in (plain, tuned, salted):
            for cached in (0, 96):
                answer = harness.ask(request)
                assert num_cached(answer) == cached
                assert answer.ids[0] == reference(base, request)
        kept = harness.stats()["kept_bytes"]
        gone: list[bool] = []
        harness.engine.unload(None, adapter.sha256, gone.append)
        assert harness.stats()["kept_bytes"] == kept * 2 // 3
        harness.engine.unload(base, None, gone.append)
        assert harness.stats()["kept_bytes"] == 0
        assert gone == [True, True]


def test_what_is_kept_makes_way_for_what_runs(base: Path) -> None:
    model_bytes = 558_336
    budget = model_bytes + 600 * position_bytes()
    with running_engine(memory_bytes=budget) as harness:
        for start in range(12):
            request = greedy(base, [20 + start, *range(30, 90)], 5)
            assert harness.ask(request).ids[0] == reference(base, request)
            stats = harness.stats()
            used = stats["model_bytes"] + stats["cache_bytes"] + stats["kept_bytes"]
            assert used <= budget
        assert stats["kept_bytes"] > 0
        large = greedy(base, [20 + i % 300 for i in range(500)], 5)
        assert harness.ask(large).ids[0] == reference(base, large)
        assert len(harness.stats()["bases"]) == 1


def test_keys_never_cross_the_border_of_the_short_factors(tmp_path: Path) -> None:
    """Below and above 32 positions this model computes other keys for the same ids."""
    build("phi3-long", sliding_window=64).save_pretrained(tmp_path)
    ids = list(range(3, 75))
    requests = [
        (greedy(tmp_path, ids[:32], 1, n=2), 0),
        (greedy(tmp_path, ids[:40], 4), 0),
        (greedy(tmp_path, ids[:70], 4, n=2), 32),
        (greedy(tmp_path, ids, 4), 64),
        # Begins short, crosses, and ends long.
        (greedy(tmp_path, ids[:30], 40), 0),
        (greedy(tmp_path, ids[:33], 3), 32),
    ]
    with running_engine() as harness:
        for request, cached in requests:
            answer = harness.ask(request)
            assert num_cached(answer) == cached
            for index in range(request.n):
                assert answer.ids[index] == reference(tmp_path, request)


def test_a_trained_model_answers_alike_with_and_without() -> None:
    """Not bit for bit: a prompt's last piece alone takes other kernels than the whole."""
    texts = [[5 + (7 * i + seed) % 900 for i in range(300)] for seed in range(4)]
    with running_engine() as harness:
        for ids in texts:
            request = greedy(NANO, ids, 24, top_logprobs=3)
            cold, hit = harness.ask(request), harness.ask(request)
            assert (num_cached(cold), num_cached(hit)) == (0, 288)
            assert hit.ids == cold.ids
            for one, two in zip(cold.logprobs[0], hit.logprobs[0], strict=True):
                assert one.logprob == pytest.approx(two.logprob, abs=1e-4)
                assert [token for token, _ in one.top] == [token for token, _ in two.top]
