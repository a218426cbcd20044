"""Many adapters loaded, dropped and loaded again under traffic; every answer compared.

    python -m tests.soak_engine [--adapters 1000] [--clients 64] [--seconds 600]

Each client asks random prompts of random adapters; some cancel, stop, or have an adapter unloaded.
Each id of an answer must be what its adapter finds likeliest, one text and no batch. Memory must
stay within the budget and must not grow, and afterwards nothing may be running or leased.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil
import torch

from tests.engine_harness import Answer, Harness, greedy, running_engine, save_adapter
from tests.tiny_base import write_tiny_base
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter
from tunesmith.serve.protocol import AdapterRef, Done, GenRequest
from tunesmith.serve.ticket import Ticket

NUM_TOKENS = 8
PROMPT_SIZES = (4, 40, 90)
# Of the process's memory, over the last four tenths of the time: what comes of memory that is cut
# to pieces by a thousand adapters that come and go.
MAX_GROWTH = 0.05
# Nothing more comes of a request that ended, or was cancelled, this long ago.
SETTLED_S = 5.0
Key = tuple[tuple[int, ...], AdapterRef | None]


@dataclass
class Soak:
    """What came of it."""

    num_answers: int = 0
    wrong: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    num_loads_dropped: int = 0
    sizes_mb: list[tuple[float, float]] = field(default_factory=list)
    """(part of the time, memory of the process)."""
    longest: dict[Key, list[int]] = field(default_factory=dict)
    """Of each prompt and adapter; every other answer must be its beginning."""

    def tenths_mb(self) -> list[float]:
        """The memory in each tenth of the time, medians."""
        parts = [
            [size for part, size in self.sizes_mb if tenth / 10 <= part < (tenth + 1) / 10]
            for tenth in range(10)
        ]
        return [round(statistics.median(part), 1) for part in parts if part]

    def add(self, request: GenRequest, answer: Answer, fate: str) -> None:
        if fate != "cancel" and not isinstance(answer.end, Done):
            self.problems.append(repr(answer.end))
            return
        key = tuple(request.prompt_ids), request.adapter
        for index, ids in answer.ids.items():
            self.num_answers += 1
            if index in answer.finish and len(ids) != request.max_new_tokens:
                self.wrong.append(f"{len(ids)} tokens instead of {request.max_new_tokens}")
            known = self.longest.get(key, [])
            if ids[: len(known)] != known[: len(ids)]:
                self.wrong.append(f"{key}: {ids} and {known}")
            self.longest[key] = max(known, ids, key=len)


class Traffic:
    """The clients, each a thread, and what they asked until it is settled."""

    def __init__(self, harness: Harness, result: Soak, base: Path, end: float) -> None:
        self._harness, self._result, self._base, self._end = harness, result, base, end
        rng = random.Random(0)
        self._prompts = [[rng.randrange(10, 500) for _ in range(size)] for size in PROMPT_SIZES]
        self._open: deque[tuple[float, GenRequest, Ticket, str]] = deque()

    def client(self, adapters: Sequence[AdapterRef], seed: int) -> None:
        rng = random.Random(seed)
        harness = self._harness
        while time.monotonic() < self._end:
            request = greedy(
                self._base,
                rng.choice(self._prompts),
                rng.randint(1, NUM_TOKENS),
                adapter=rng.choice([None, *adapters]),
                n=rng.choice([1, 1, 2]),
            )
            fate = rng.choice(["finish", "finish", "finish", "cancel", "stop"])
            ticket = harness.submit(request)
            if fate == "cancel":
                harness.engine.cancel(ticket)
            elif fate == "stop":
                harness.engine.stop(ticket, 0)
            if rng.random() < 0.1:
                harness.engine.unload(None, rng.choice(adapters).sha256, self._dropped)
            while fate != "cancel" and harness.answers[ticket].end is None:
                if time.monotonic() > self._end + 60:
                    self._result.problems.append("an answer never ended")
                    return
                time.sleep(0.02)
            self._open.append((time.monotonic(), request, ticket, fate))

    def settle(self, before_s: float) -> None:
        """Compares what ended before then, and forgets it."""
        while self._open and self._open[0][0] < before_s:
            _, request, ticket, fate = self._open.popleft()
            self._result.add(request, self._harness.answers.pop(ticket), fate)

    def _dropped(self, was_there: bool) -> None:
        self._result.num_loads_dropped += was_there


def write_adapters(base: Path, directory: Path, number: int) -> list[AdapterRef]:
    return [save_adapter(base, directory / str(seed), seed) for seed in range(1, number + 1)]


def soak(base: Path, adapters: Sequence[AdapterRef], num_clients: int, seconds: float) -> Soak:
    """Hammers one engine, whose memory holds a fraction of the adapters, from threads."""
    result = Soak()
    models = load_once(base).num_bytes
    each = (adapters[0].path / "adapter_model.safetensors").stat().st_size
    budget = models + max(len(adapters) // 4, num_clients + 8) * each + (8 << 20)
    process = psutil.Process()
    with running_engine(max_batch=16, max_queue=4 * num_clients, memory_bytes=budget) as harness:
        start = time.monotonic()
        traffic = Traffic(harness, result, base, start + seconds)
        threads = [
            threading.Thread(target=traffic.client, args=(adapters, seed))
            for seed in range(num_clients)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            harness.receive_some(0.1)
            now = time.monotonic()
            traffic.settle(now - SETTLED_S)
            if not result.sizes_mb or (now - start) / seconds > result.sizes_mb[-1][0] + 0.005:
                size_mb = process.memory_info().rss / 2**20
                result.sizes_mb.append(((now - start) / seconds, size_mb))
        for thread in threads:
            thread.join()
        harness.settle()
        traffic.settle(time.monotonic())
        stats = harness.stats()
    if stats["num_running"] or stats["num_waiting"] or stats["cache_bytes"]:
        result.problems.append(f"left behind: {stats}")
    if any(entry["leases"] for entry in stats["bases"]):
        result.problems.append("leases are left")
    if stats["model_bytes"] + stats["kept_bytes"] > budget:
        result.problems.append("the budget is exceeded")
    torch.set_num_threads(1)  # passes this small only wait for a second
    for key, ids in result.longest.items():
        if not is_greedy(base, *key, ids):
            result.wrong.append(str(key))
    return result


def is_greedy(
    base: Path, prompt: tuple[int, ...], adapter: AdapterRef | None, ids: list[int]
) -> bool:
    """Whether each id is the likeliest after those before it, by one pass and no cache."""
    model = load_once(base)
    lora = Adapter.load(adapter.path, model.linears) if adapter else None
    with torch.inference_mode():
        hidden_TE = model.hidden(torch.tensor([[*prompt, *ids[:-1]]]), lora=lora)[0]
        best = model.logits(hidden_TE[len(prompt) - 1 :]).argmax(-1).tolist()
    return best == ids


@cache
def load_once(base: Path) -> CausalModel:
    return load_model(base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        base = write_tiny_base(Path(directory) / "tiny")
        adapters = write_adapters(base, Path(directory) / "adapters", arguments.adapters)
        result = soak(base, adapters, arguments.clients, arguments.seconds)
    tenths_mb = result.tenths_mb()
    if tenths_mb[-1] > tenths_mb[5] * (1 + MAX_GROWTH):
        result.problems.append("the memory grew")
    print(
        json.dumps(
            {
                "answers": result.num_answers,
                "wrong": len(result.wrong),
                "problems": result.problems[:10],
                "unloaded": result.num_loads_dropped,
                "memory_mb_by_tenths": tenths_mb,
            }
        )
    )
    raise SystemExit(bool(result.wrong or result.problems))


if __name__ == "__main__":
    main()
