"""Many adapters loaded, dropped and loaded again under traffic; every answer compared.

    python -m tests.soak_engine [--adapters 1000] [--clients 64] [--seconds 540]

Each client asks random prompts of random adapters; some cancel, stop, or have an adapter unloaded.
Each id of an answer must be what its adapter finds likeliest, one text and no batch. Memory must
stay within the budget, and afterwards nothing may be running or leased.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from tests.engine_harness import Answer, greedy, running_engine, save_adapter
from tests.tiny_base import write_tiny_base
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter
from tunesmith.serve.protocol import AdapterRef, Done, GenRequest
from tunesmith.serve.ticket import Ticket

NUM_TOKENS = 8
NUM_PROMPTS = 3


@dataclass
class Soak:
    """What came of it."""

    num_answers: int = 0
    wrong: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    num_loads_dropped: int = 0
    grown_mb: float = 0.0
    """Of the process's largest size, over the second half."""


def write_adapters(base: Path, directory: Path, number: int) -> list[AdapterRef]:
    return [save_adapter(base, directory / str(seed), seed) for seed in range(1, number + 1)]


def soak(base: Path, adapters: Sequence[AdapterRef], num_clients: int, seconds: float) -> Soak:
    """Hammers one engine, whose memory holds a fraction of the adapters, from threads."""
    result = Soak()
    rng = random.Random(0)
    prompts = [[rng.randrange(10, 500) for _ in range(size)] for size in (4, 40, 90)[:NUM_PROMPTS]]
    asked: list[tuple[GenRequest, Ticket, str]] = []
    models = load_once(base).num_bytes
    each = (adapters[0].path / "adapter_model.safetensors").stat().st_size
    budget = models + max(len(adapters) // 4, num_clients + 8) * each + (8 << 20)
    with running_engine(max_batch=16, max_queue=4 * num_clients, memory_bytes=budget) as harness:
        end = time.monotonic() + seconds

        def client(seed: int) -> None:
            rng = random.Random(seed)
            while time.monotonic() < end:
                request = greedy(
                    base,
                    rng.choice(prompts),
                    rng.randint(1, NUM_TOKENS),
                    adapter=rng.choice([None, *adapters]),
                    n=rng.choice([1, 1, 2]),
                )
                fate = rng.choice(["finish", "finish", "finish", "cancel", "stop"])
                ticket = harness.submit(request)
                asked.append((request, ticket, fate))
                if fate == "cancel":
                    harness.engine.cancel(ticket)
                elif fate == "stop":
                    harness.engine.stop(ticket, 0)
                if rng.random() < 0.1:
                    gone = rng.choice(adapters).sha256
                    harness.engine.unload(None, gone, dropped)
                while fate != "cancel" and harness.answers[ticket].end is None:
                    if time.monotonic() > end + 60:
                        result.problems.append("an answer never ended")
                        return
                    time.sleep(0.02)

        def dropped(was_there: bool) -> None:
            result.num_loads_dropped += was_there

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(num_clients)]
        for thread in threads:
            thread.start()
        half_mb = 0.0
        while any(thread.is_alive() for thread in threads):
            harness.receive_some(0.1)
            if not half_mb and time.monotonic() > end - seconds / 2:
                half_mb = size_mb()
        for thread in threads:
            thread.join()
        result.grown_mb = size_mb() - half_mb
        harness.settle()
        stats = harness.stats()
    if stats["num_running"] or stats["num_waiting"] or stats["cache_bytes"]:
        result.problems.append(f"left behind: {stats}")
    if any(entry["leases"] for entry in stats["bases"]):
        result.problems.append("leases are left")
    if stats["model_bytes"] + stats["kept_bytes"] > budget:
        result.problems.append("the budget is exceeded")
    compare(base, asked, harness.answers, result)
    return result


def compare(
    base: Path,
    asked: Sequence[tuple[GenRequest, Ticket, str]],
    answers: dict[Ticket, Answer],
    result: Soak,
) -> None:
    torch.set_num_threads(1)  # passes this small only wait for a second
    longest: dict[tuple[tuple[int, ...], AdapterRef | None], list[int]] = {}
    for request, ticket, fate in asked:
        answer = answers[ticket]
        if fate != "cancel" and not isinstance(answer.end, Done):
            result.problems.append(repr(answer.end))
            continue
        key = tuple(request.prompt_ids), request.adapter
        for index, ids in answer.ids.items():
            result.num_answers += 1
            whole = index in answer.finish
            if whole and len(ids) != request.max_new_tokens:
                result.wrong.append(f"{len(ids)} tokens instead of {request.max_new_tokens}")
            known = longest.get(key, [])
            if ids[: len(known)] != known[: len(ids)]:
                result.wrong.append(f"{key}: {ids} and {known}")
            longest[key] = max(known, ids, key=len)
    result.wrong += [str(key) for key, ids in longest.items() if not is_greedy(base, *key, ids)]


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


def size_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=360)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        base = write_tiny_base(Path(directory) / "tiny")
        adapters = write_adapters(base, Path(directory) / "adapters", arguments.adapters)
        result = soak(base, adapters, arguments.clients, arguments.seconds)
    print(
        json.dumps(
            {
                "answers": result.num_answers,
                "wrong": len(result.wrong),
                "problems": result.problems[:10],
                "unloaded": result.num_loads_dropped,
                "grown_mb": round(result.grown_mb, 1),
            }
        )
    )
    raise SystemExit(bool(result.wrong or result.problems))


if __name__ == "__main__":
    main()
