"""The engine end to end, in process: what comes out does not depend on what else is running."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine_harness import (
    Answer,
    Harness,
    greedy,
    reference,
    running_engine,
)
from tests.tiny_base import NANO, TINY, write_tiny_base
from tunesmith.errors import BaseModelError, EngineError
from tunesmith.model import memory
from tunesmith.serve.lane import CHUNK
from tunesmith.serve.protocol import (
    AdapterRef,
    Done,
    Draining,
    GenRequest,
    InvalidRequest,
    Overloaded,
)


def test_an_engine_takes_half_of_the_memory_unless_told() -> None:
    for setting, budget in ((0, memory.total_bytes() // 2), (12345, 12345)):
        with running_engine(memory_bytes=setting) as harness:
            assert harness.stats()["budget_bytes"] == budget
    with running_engine(device="auto") as harness:
        assert harness.stats()["budget_bytes"] > 0


def ids_of(answer: Answer, index: int = 0) -> list[int]:
    assert isinstance(answer.end, Done), answer.end
    return answer.ids[index]


def test_greedy_answers_equal_the_definition(base: Path) -> None:
    requests = [
        greedy(base, "hello", 30),
        greedy(base, "the quick brown fox " * 10, 12, n=3),
        greedy(base, [10 + i % 300 for i in range(2 * CHUNK + 7)], 4),
        greedy(base, "a", 1),
    ]
    with running_engine() as harness:
        answers = harness.wait(*[harness.submit(request) for request in requests])
    for request, answer in zip(requests, answers, strict=True):
        for index in range(request.n):
            assert ids_of(answer, index) == reference(base, request)
            assert answer.finish[index] == "length"
        assert isinstance(answer.end, Done)
        assert answer.end.prompt_tokens == len(request.prompt_ids)
        assert answer.end.completion_tokens == request.n * request.max_new_tokens


def test_adapters_are_never_mixed_up(base: Path, adapters: list[AdapterRef]) -> None:
    """Two adapters and the base, hammered from three threads; each answer is its own."""
    texts = ["one", "two words", "and three of them", "four " * 20]
    wanted = {}
    for adapter in (None, *adapters):
        for text in texts:
            request = greedy(base, text, 12, adapter=adapter)
            wanted[adapter, text] = reference(base, request)
    assert len({tuple(ids) for ids in wanted.values()}) == len(wanted)
    asked = []
    with running_engine(max_batch=8) as harness:

        def hammer(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(20):
                key = rng.choice(list(wanted))
                request = greedy(base, key[1], rng.randint(1, 12), adapter=key[0])
                asked.append((key, request, harness.submit(request)))

        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers = harness.wait(*[ticket for *_, ticket in asked])
        assert harness.stats()["num_running"] == 0
    for (key, request, _), answer in zip(asked, answers, strict=True):
        assert ids_of(answer) == wanted[key][: request.max_new_tokens]


def test_a_stop_id_ends_the_answer_and_is_not_part_of_it(base: Path) -> None:
    full = reference(base, greedy(base, "hello", 30))
    request = greedy(base, "hello", 30, stop_ids=frozenset([full[5]]), top_logprobs=2)
    with running_engine() as harness:
        answer = harness.ask(request)
    kept = full[: full.index(full[5])]
    assert ids_of(answer) == kept
    assert answer.finish == {0: "stop"}
    assert len(answer.logprobs[0]) == len(kept)
    assert isinstance(answer.end, Done)
    assert answer.end.completion_tokens == len(kept)


def test_a_seed_gives_the_same_answer_alone_and_in_company(base: Path) -> None:
    request = greedy(base, "hello", 20, temperature=1.0, top_p=0.9, seed=7, n=3)
    with running_engine() as harness:
        alone = harness.ask(request)
        others = [harness.submit(greedy(base, "x " * k, 25, temperature=1.0)) for k in range(1, 6)]
        together = harness.ask(request)
        harness.wait(*others)
        other = harness.ask(greedy(base, "hello", 20, temperature=1.0, top_p=0.9, seed=8))
    assert alone.ids == together.ids
    assert len({tuple(ids) for ids in alone.ids.values()}) == 3
    assert ids_of(other) != ids_of(alone)


def test_more_choices_than_fit_at_once(base: Path) -> None:
    request = greedy(base, "hello", 6, temperature=1.0, seed=3, n=9)
    with running_engine() as harness:
        wide = harness.ask(request)
        assert harness.stats()["num_passes"] == 6
    with running_engine(max_batch=2) as harness:
        assert harness.ask(request).ids == wide.ids
        # The last choices need the prompt again once their siblings have ended.
        assert ids_of(harness.ask(greedy(base, "hello", 1, n=5)), 4) == reference(
            base, greedy(base, "hello", 1)
        )


def test_choices_give_way_when_memory_is_short_and_lose_nothing(base: Path) -> None:
    position = 2 * TINY.num_layers * TINY.num_kv_heads * TINY.head_dim * 4
    model_bytes = 558_336
    requests = [greedy(base, "hi " * k, 90, n=2) for k in (3, 5, 8)]
    budget = model_bytes + 2 * 192 * position
    with running_engine(memory_bytes=budget) as harness:
        answers = harness.wait(*[harness.submit(request) for request in requests])
        stats = harness.stats()
    assert stats["model_bytes"] == model_bytes
    assert stats["num_preempted"] > 0
    for request, answer in zip(requests, answers, strict=True):
        for index in range(2):
            assert ids_of(answer, index) == reference(base, request)


def test_a_prompt_that_can_never_fit_is_refused(base: Path) -> None:
    with running_engine(memory_bytes=601_072) as harness:
        answer = harness.ask(greedy(base, [20] * 200, 5))
        assert isinstance(answer.end, EngineError)
        assert "memory" in answer.end.message
        assert ids_of(harness.ask(greedy(base, "hi", 5)))
        cramped = harness.ask(greedy(base, "hi", 100))
        assert isinstance(cramped.end, EngineError)
        assert ids_of(harness.ask(greedy(base, "hi", 5)))


def test_cancelled_and_stopped_choices_are_gone_at_once(base: Path) -> None:
    with running_engine() as harness:
        cancelled = harness.submit(greedy(base, "hello", 1500))
        stopped = harness.submit(greedy(base, "hello", 1500, n=2))
        while min(map(len, (harness.answers[stopped].ids, harness.answers[cancelled].ids))) < 1:
            harness.receive()
        harness.engine.cancel(cancelled)
        harness.engine.stop(stopped, 1)
        harness.engine.stop(stopped, 5)
        assert harness.stats()["num_running"] == 1
        harness.engine.stop(stopped, 0)
        [answer] = harness.wait(stopped)
        stats = harness.stats()
    assert isinstance(answer.end, Done)
    assert answer.finish == {}
    assert harness.answers[cancelled].end is None
    assert stats["num_running"] == stats["cache_bytes"] == 0
    assert stats["bases"][0]["leases"] == 0


def test_cancelling_while_the_base_loads_leaves_nothing_behind(base: Path) -> None:
    with running_engine() as harness:
        tickets = [harness.submit(greedy(base, "hello", 5)) for _ in range(3)]
        harness.engine.cancel(tickets[1])
        harness.wait(tickets[0], tickets[2])
        assert harness.stats()["bases"][0]["leases"] == 0
    assert harness.answers[tickets[1]].ids == {}


def test_a_full_queue_refuses(base: Path) -> None:
    with running_engine(max_batch=1, max_queue=2) as harness:
        first = harness.submit(greedy(base, "hello", 300))
        while not harness.answers[first].ids:
            harness.receive()
        waiting = [harness.submit(greedy(base, "hello", 1)) for _ in range(3)]
        *served, refused = harness.wait(*waiting)
    assert isinstance(refused.end, Overloaded)
    assert all(isinstance(answer.end, Done) for answer in served)


def test_a_long_prompt_lets_running_answers_go_on(base: Path) -> None:
    long = greedy(base, [20 + i % 200 for i in range(3 * CHUNK)], 1)
    with running_engine() as harness:
        running = harness.submit(greedy(base, "hello", 1500))
        while not harness.answers[running].ids:
            harness.receive()
        ticket = harness.submit(long)
        while harness.stats()["num_waiting"]:
            harness.receive()
        before = len(harness.answers[running].ids[0])
        harness.wait(ticket)
        # The first chunk was done; two more passes, and one token after each.
        assert len(harness.answers[running].ids[0]) - before >= 2
        harness.engine.cancel(running)


def test_two_bases_answer_side_by_side(base: Path, tmp_path: Path) -> None:
    other = write_tiny_base(tmp_path / "other", seed=1)
    requests = [greedy(where, "hello", 20) for where in (base, other)]
    with running_engine() as harness:
        answers = harness.wait(*[harness.submit(request) for request in requests])
    assert [ids_of(answer) for answer in answers] == [reference(r.base_path, r) for r in requests]
    assert ids_of(answers[0]) != ids_of(answers[1])


def test_a_base_whose_files_were_replaced_is_loaded_again(base: Path, tmp_path: Path) -> None:
    copy = write_tiny_base(tmp_path / "base")
    with running_engine() as harness:
        old = harness.ask(greedy(copy, "hello", 10))
        shutil.rmtree(copy)
        write_tiny_base(copy, seed=5)
        new = harness.ask(greedy(copy, "hello", 10))
        assert len(harness.stats()["bases"]) == 1
    assert ids_of(old) == reference(base, greedy(base, "hello", 10))
    assert ids_of(new) != ids_of(old)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda base: greedy(base, [TINY.vocab_size], 1),
        lambda base: greedy(base, [-1], 1),
        lambda base: greedy(base, [5], 1, logit_bias={TINY.vocab_size: 1.0}),
        lambda base: greedy(base, [5] * TINY.max_positions, 1),
    ],
)
def test_what_the_model_cannot_take_is_refused(base: Path, request_of: object) -> None:
    assert callable(request_of)
    with running_engine() as harness:
        answer = harness.ask(request_of(base))
    assert isinstance(answer.end, InvalidRequest)


def test_the_end_of_the_context_ends_the_answer(base: Path) -> None:
    request = greedy(base, [5] * (TINY.max_positions - 3), 10)
    with running_engine() as harness:
        answer = harness.ask(request)
    assert len(ids_of(answer)) == 3
    assert answer.finish == {0: "length"}


def test_a_missing_base_is_an_error_of_its_own(base: Path, tmp_path: Path) -> None:
    with running_engine() as harness:
        missing = harness.ask(greedy(tmp_path / "nothing", "hello", 1))
        assert ids_of(harness.ask(greedy(base, "hello", 1)))
    assert isinstance(missing.end, BaseModelError)


def test_damaged_weights_are_noticed(tmp_path: Path) -> None:
    broken = write_tiny_base(tmp_path / "broken")
    file = broken / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, str(file), metadata={"format": "pt"})
    with running_engine() as harness:
        answer = harness.ask(greedy(broken, "hello", 4, n=2))
        assert harness.stats()["num_running"] == 0
    assert isinstance(answer.end, EngineError)
    assert answer.ids == {}


def test_a_failing_pass_ends_its_requests_and_not_the_engine(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise MemoryError("no memory left")

    with running_engine() as harness:
        assert ids_of(harness.ask(greedy(base, "hello", 3)))
        with monkeypatch.context() as patch:
            patch.setattr("tunesmith.serve.rows.BatchedRows.run", run)
            failed = harness.ask(greedy(base, "hello", 3))
        assert isinstance(failed.end, EngineError)
        assert ids_of(harness.ask(greedy(base, "hello", 3)))
        assert harness.stats()["bases"][0]["leases"] == 0


def drained(harness: Harness) -> threading.Event:
    event = threading.Event()
    harness.engine.drain(event.set)
    return event


def test_draining_finishes_what_runs_and_refuses_the_rest(base: Path) -> None:
    with running_engine() as harness:
        running = harness.submit(greedy(base, "hello", 100))
        event = drained(harness)
        late = harness.submit(greedy(base, "hello", 1))
        finished, refused = harness.wait(running, late)
        assert event.wait(10)
    assert len(ids_of(finished)) == 100
    assert isinstance(refused.end, Draining)


def test_an_idle_engine_is_drained_at_once() -> None:
    with running_engine() as harness:
        assert drained(harness).wait(10)
        assert harness.stats()["state"] == "draining"


def test_log_probabilities_are_the_models(base: Path) -> None:
    from tunesmith.model.load import load_model

    request = GenRequest(
        base, greedy(base, "hello", 1).prompt_ids, 5, frozenset(), seed=1, top_logprobs=3
    )
    with running_engine() as harness:
        answer = harness.ask(request)
    model = load_model(base)
    ids = [*request.prompt_ids, *ids_of(answer)]
    logits = model.logits(model.hidden(torch.tensor([ids]))[0])
    expected = torch.log_softmax(logits, -1)[len(request.prompt_ids) - 1 :]
    for place, entry in enumerate(answer.logprobs[0]):
        best = expected[place].topk(3)
        assert entry.logprob == pytest.approx(
            expected[place, ids_of(answer)[place]].item(), abs=1e-4
        )
        assert [token for token, _ in entry.top] == best.indices.tolist()


def test_a_trained_model_answers_alike_alone_and_in_company() -> None:
    words = "What is the best way to learn how the weather changes in spring and summer ?".split()
    requests = [
        greedy(NANO, [1, 4, *[300 + 7 * len(word) + place for word in words[:place]], 7, 5], 24)
        for place in range(2, 12)
    ]
    with running_engine() as harness:
        alone = [ids_of(harness.ask(request)) for request in requests]
        together = harness.wait(*[harness.submit(request) for request in requests])
    assert [ids_of(answer) for answer in together] == alone
