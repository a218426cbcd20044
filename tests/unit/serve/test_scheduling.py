"""Who is computed when: priorities, deadlines, and that no order of events changes an answer."""

from __future__ import annotations

import queue
import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine_harness import (
    Answer,
    Harness,
    greedy,
    reference,
    running_engine,
)
from tunesmith.serve.lane import CHUNK, SHARED_CHUNK
from tunesmith.serve.protocol import (
    AdapterRef,
    DeadlineExceeded,
    Done,
    GenRequest,
    Overloaded,
    Stats,
)
from tunesmith.serve.ticket import Ticket

# Of the tiny base, and of a position of one of its rows.
BASE_BYTES = 558_336
POSITION_BYTES = 512


def begun(harness: Harness, request: GenRequest) -> Ticket:
    ticket = harness.submit(request)
    while not harness.answers[ticket].ids:
        harness.receive()
    return ticket


def test_the_urgent_begin_first_and_of_equals_the_first_that_came(base: Path) -> None:
    with running_engine(max_batch=1) as harness:
        running = begun(harness, greedy(base, "hello", 1500))
        order = [0, 5, -1, 5, 0, -1]
        tickets = [
            harness.submit(greedy(base, [20 + place], 1, priority=priority))
            for place, priority in enumerate(order)
        ]
        assert harness.stats()["num_waiting"] == len(order)
        harness.engine.cancel(running)
        harness.wait(*tickets)
    started = [ticket.started_s or 0.0 for ticket in tickets]
    assert sorted(range(6), key=lambda place: started[place]) == [2, 5, 0, 4, 1, 3]


def test_a_deadline_ends_what_waits_and_what_runs(base: Path) -> None:
    with running_engine(max_batch=1) as harness:
        running = harness.submit(greedy(base, "hello", 2000, deadline_s=1.0))
        waiting = harness.submit(greedy(base, "hello", 5, deadline_s=0.5, priority=1))
        patient = harness.submit(greedy(base, "hello", 5, deadline_s=60, priority=1))
        late, never, served = harness.wait(running, waiting, patient)
        stats = harness.stats()
    if not isinstance(late.end, Done):  # the machine may be faster than this
        assert isinstance(late.end, DeadlineExceeded)
        assert "ended after 1 seconds" in late.end.message
        assert isinstance(never.end, DeadlineExceeded)
        assert "begun after 0.5 seconds" in never.end.message
    assert served.ids[0] == reference(base, greedy(base, "hello", 5))
    assert stats["num_running"] == stats["num_waiting"] == stats["cache_bytes"] == 0


def test_a_deadline_passes_while_the_base_loads(base: Path) -> None:
    """Nothing computes then, and the engine still wakes up in time."""
    with running_engine() as harness:
        with harness.engine._residents._base_loader._turn:
            ticket = harness.submit(greedy(base, "hello", 5, deadline_s=0.1))
            [answer] = harness.wait(ticket)
        assert isinstance(answer.end, DeadlineExceeded)
        assert harness.ask(greedy(base, "hello", 5)).ids
        assert harness.stats()["bases"][0]["leases"] == 0


def test_a_running_answer_waits_for_a_piece_of_a_prompt_at_most(base: Path) -> None:
    long = [greedy(base, [20 + k, *range(30, 400), *range(30, 400)], 1) for k in range(4)]
    num_ids = sum(len(request.prompt_ids) for request in long)
    with running_engine() as harness:
        running = begun(harness, greedy(base, "hello", 1500))
        before = harness.stats()["num_passes"]
        tickets = [harness.submit(request) for request in long]
        answers = harness.wait(*tickets)
        num_passes = harness.stats()["num_passes"] - before
        harness.engine.cancel(running)
    assert num_passes >= num_ids // SHARED_CHUNK
    for request, answer in zip(long, answers, strict=True):
        assert answer.ids[0] == reference(base, request)


def test_short_prompts_share_a_pass(base: Path) -> None:
    requests = [greedy(base, [20 + k, *range(30, 30 + 10 * k)], 3) for k in range(1, 8)]
    assert sum(len(request.prompt_ids) for request in requests) < CHUNK
    with running_engine() as harness:
        harness.ask(greedy(base, "hello", 1))
        before = harness.stats()["num_passes"]
        harness.engine._inbox.put(lambda: time.sleep(0.2))
        answers = harness.wait(*[harness.submit(request) for request in requests])
        assert harness.stats()["num_passes"] - before == 3
    for request, answer in zip(requests, answers, strict=True):
        assert answer.ids[0] == reference(base, request)


def test_an_adapter_waits_for_the_memory_of_running_answers(
    base: Path, adapters: list[AdapterRef]
) -> None:
    """And whoever came after it waits, too, or it might wait for ever."""
    with running_engine(memory_bytes=BASE_BYTES + 512 * POSITION_BYTES) as harness:
        deliver, others_came = harness.engine._deliver, threading.Event()

        def deliver_and_wait(news: Any) -> None:
            deliver(news)
            others_came.wait(60)

        harness.engine._deliver = deliver_and_wait
        first = begun(harness, greedy(base, [*range(30, 430)], 60))
        requests = [greedy(base, "hello", 3, adapter=each) for each in adapters[:2]]
        requests.append(greedy(base, "later", 3))
        tickets = [harness.submit(request) for request in requests]
        found: queue.Queue[Stats] = queue.Queue()
        harness.engine.stats(found.put)
        others_came.set()
        stats = found.get(timeout=60)
        assert (stats.num_running, stats.num_waiting) == (1, 3)
        whole, *answers = harness.wait(first, *tickets)
    assert whole.ids[0] == reference(base, first.request)
    for request, answer in zip(requests, answers, strict=True):
        assert answer.ids[0] == reference(base, request)


def test_an_adapter_that_never_fits_is_refused_once_nothing_runs(
    base: Path, adapters: list[AdapterRef]
) -> None:
    with running_engine(memory_bytes=BASE_BYTES + 1024) as harness:
        answer = harness.ask(greedy(base, "hello", 3, adapter=adapters[0]))
        assert isinstance(answer.end, Overloaded)
        assert all(base["leases"] == 0 for base in harness.stats()["bases"])


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_around_it_an_answer_is_the_same(
    base: Path, adapters: list[AdapterRef], seed: int
) -> None:
    """Random arrivals, cancellations, stops, deadlines, priorities and unloads, with room for
    hardly anything; each answer is, as far as it got, that of its request alone."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(10, 500) for _ in range(size)] for size in (1, 5, 40, 60, 200)]
    asked: list[tuple[GenRequest, Ticket, str]] = []
    with running_engine(
        max_batch=5, memory_bytes=BASE_BYTES + 130_000 + 4 * 256 * POSITION_BYTES
    ) as harness:
        for _ in range(50):
            fate = rng.choice(["finish", "finish", "cancel", "stop", "deadline"])
            prompt = rng.choice(prompts)
            request = greedy(
                base,
                prompt[: rng.randint(1, len(prompt))] + rng.choice([[], prompt]),
                rng.choice([1, 3, 30]),
                adapter=rng.choice([None, *adapters]),
                n=rng.choice([1, 1, 3]),
                priority=rng.choice([0, 0, 1]),
                deadline_s=rng.choice([1e-4, 0.02, 0.2]) if fate == "deadline" else None,
            )
            ticket = harness.submit(request)
            if fate != "finish":
                for _ in range(rng.randrange(3)):
                    harness.stats()
            if fate == "cancel":
                harness.engine.cancel(ticket)
            elif fate == "stop":
                harness.engine.stop(ticket, 0)
            if rng.random() < 0.1:
                harness.engine.unload(None, rng.choice(adapters).sha256, lambda _: None)
            asked.append((request, ticket, fate))
        harness.wait(*[ticket for _, ticket, fate in asked if fate != "cancel"])
        stats = harness.stats()
    assert stats["num_running"] == stats["num_waiting"] == stats["cache_bytes"] == 0
    assert all(base["leases"] == 0 for base in stats["bases"])
    known: dict[tuple[tuple[int, ...], str | None], list[int]] = {}
    for request, ticket, fate in asked:
        key = tuple(request.prompt_ids), request.adapter.sha256 if request.adapter else None
        if key not in known:
            known[key] = reference(base, replace(request, max_new_tokens=30))
        expected = known[key][: request.max_new_tokens]
        check(harness.answers[ticket], expected, request.n if fate == "finish" else 0)


def check(answer: Answer, expected: list[int], num_whole: int) -> None:
    """Each choice is a beginning of what it should be; so many are whole."""
    for index, ids in answer.ids.items():
        assert ids == expected[: len(ids)]
        if index in answer.finish:
            assert ids == expected
    assert sum(ids == expected for ids in answer.ids.values()) >= num_whole
