"""The engine against the limits of this machine, which are measured beside it.

    python -m bench.engine [--whole]

One thread, and time on the processor, so that other work on the machine disturbs less; what is
compared is measured in turn, in the same run, and the fastest fifth of the repetitions counts. The
model has the layers of a 0.5B Qwen 2, but fewer (`--whole`: all, and its vocabulary), and random
weights; a second table is of the embedded base. Both lie in memory as they are served. Prints JSON
lines. Two minutes on a quiet machine.

Limits: a decode step has to read every weight once (bandwidth; of bf16 where weights are kept so,
else of fp32) and to multiply it with every row in fp32 (arithmetic); the larger of both is what a
step cannot be faster than. In 8 bits it can.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from tests.engine_harness import Harness, greedy, save_adapter
from tunesmith.bases import embedded_directory
from tunesmith.model.decoder import Decoder
from tunesmith.model.families import DecoderConfig
from tunesmith.model.fresh import init_weights
from tunesmith.model.frozen import freeze
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.lora import Adapter, LoraSpec
from tunesmith.serve.local import Limits
from tunesmith.serve.protocol import Done
from tunesmith.serve.rows import BatchedRows

STREAMS = (1, 8, 32)
NUM_ADAPTERS = 8
RANK = 16
CONTEXT = 128
REPETITIONS = 20
SECONDS_EACH = 25.0
LAYERS = 4
HALF_BILLION = DecoderConfig(
    vocab_size=32_000,
    hidden_size=896,
    intermediate_size=4864,
    num_layers=LAYERS,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    max_positions=2048,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true", help="all of the 0.5B shape")
    config = HALF_BILLION
    if parser.parse_args().whole:
        config = replace(config, num_layers=24, vocab_size=151_936)
    torch.set_num_threads(1)
    tell("machine", load=os.getloadavg()[0], cores=os.cpu_count(), torch=torch.__version__)
    with torch.inference_mode():
        limits = measure_limits()
        tell("limits", **limits)
        embedded = served(load_model(embedded_directory()))
        weights = {name: each.bfloat16() for name, each in init_weights(config, 0).items()}
        random = served(Decoder(config, weights))
        shape = f"0.5B shape, {config.num_layers} layers"
        narrow = freeze(Decoder(config, weights), int8=True)
        assert isinstance(narrow, Decoder)
        for name, model in (
            ("embedded", embedded),
            (shape, random),
            (f"{shape}, int8", narrow),
        ):
            for num_streams in STREAMS:
                decode(name, model, num_streams, measure_limits())
            prefill(name, model, measure_limits())
        against_transformers(embedded_directory())
    through_the_engine(embedded_directory())


def served(model: CausalModel) -> Decoder:
    """As the engine keeps it."""
    found = freeze(model, in_fp32=True)
    assert isinstance(found, Decoder)
    return found


def tell(what: str, **found: object) -> None:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
    print(json.dumps({"what": what, **rounded}), flush=True)


def in_turn(
    works: dict[str, Callable[[], object]], clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """Seconds (on the processor) of each, measured by turns; the fastest fifth of the times."""
    times: dict[str, list[float]] = {name: [] for name in works}
    end = time.monotonic() + SECONDS_EACH
    for _ in range(REPETITIONS):
        for name, work in works.items():
            start = clock()
            work()
            times[name].append(clock() - start)
        if time.monotonic() > end:
            break
    return {name: sorted(found)[len(found) // 5] for name, found in times.items()}


def measure_limits(num_threads: int = 1) -> dict[str, float]:
    """Bytes read and floating-point operations (fp32) a second, in billions; of several threads
    on the clock."""
    large = torch.ones(64 << 20)
    square = torch.ones(1024, 1024)
    clock = time.thread_time if num_threads == 1 else time.perf_counter
    seconds = in_turn({"read": large.sum, "multiply": lambda: square @ square}, clock)
    return {
        "read_gb_s": large.nbytes / seconds["read"] / 1e9,
        "gflop_s": 2 * 1024**3 / seconds["multiply"] / 1e9,
    }


def num_weights(model: Decoder) -> int:
    """Those that a step multiplies with: a tied embedding is its head, an untied one is not."""
    in_layers = sum(out * inputs for out, inputs in model.linears.values())
    return in_layers + model.vocab_size * model.hidden_size


def item_bytes(model: CausalModel) -> int:
    """Of a weight as the limit counts it: bf16 where it is kept so, else fp32."""
    return 2 if getattr(model, "products", "") == "native" else 4


def limit_s(num_weights: int, item_bytes: int, num_rows: int, limits: dict[str, float]) -> float:
    """What a step of that many rows cannot be faster than."""
    read_s = num_weights * item_bytes / limits["read_gb_s"]
    return max(read_s, 2 * num_weights * num_rows / limits["gflop_s"]) / 1e9


def adapters_for(model: Decoder) -> list[Adapter]:
    adapters = [
        Adapter.create(model.linears, LoraSpec(RANK, 2.0 * RANK), seed)
        for seed in range(NUM_ADAPTERS)
    ]
    for adapter in adapters:
        for matrix in adapter.b.values():
            matrix.normal_(0, 0.01)
    return [adapter.to(model.dtype) for adapter in adapters]


def decode(name: str, model: Decoder, num_streams: int, limits: dict[str, float]) -> None:
    """A token for each of the streams: the base, one adapter, and a different one for each."""
    adapters = adapters_for(model)
    by_name: dict[str, list[Adapter | None]] = {
        "base": [None] * num_streams,
        "one": [adapters[0]] * num_streams,
        "different": [adapters[place % NUM_ADAPTERS] for place in range(num_streams)],
    }
    works = {}
    for kind, loras in by_name.items():
        rows = BatchedRows(model, num_streams)
        rows.reserve(num_streams, CONTEXT + REPETITIONS + 1)
        for _ in loras:
            rows.add()
        rows.run([[5 + place + k for k in range(CONTEXT)] for place in range(num_streams)], loras)

        def step(rows: BatchedRows = rows, loras: list[Adapter | None] = loras) -> None:
            rows.run([[9]] * num_streams, loras)

        works[kind] = step
    seconds = in_turn(works)
    limit = limit_s(num_weights(model), item_bytes(model), num_streams, limits)
    tell(
        "decode",
        model=name,
        streams=num_streams,
        tokens_s=num_streams / seconds["base"],
        share_of_limit=limit / seconds["base"],
        one_adapter=seconds["base"] / seconds["one"],
        eight_adapters=seconds["base"] / seconds["different"],
    )


def prefill(name: str, model: Decoder, limits: dict[str, float]) -> None:
    ids = [5 + place % 900 for place in range(512)]

    def work() -> None:
        rows = BatchedRows(model, 1)
        rows.reserve(1, len(ids))
        rows.add()
        rows.run([ids], [None])

    seconds = in_turn({"prefill": work})["prefill"]
    # Of the head and of what only the last position goes through, next to nothing.
    last = (model.linears[name] for name in model.last_linears)
    multiplied = num_weights(model) - model.vocab_size * model.hidden_size
    multiplied -= sum(outputs * inputs for outputs, inputs in last)
    limit = 2 * multiplied * len(ids) / limits["gflop_s"] / 1e9
    tell("prefill", model=name, tokens_s=len(ids) / seconds, share_of_limit=limit / seconds)


def against_transformers(base: Path) -> None:
    """A step of 8 streams: transformers' forward pass with its own cache, and ours."""
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.arange(CONTEXT)[None].expand(8, -1) + 5
    past = DynamicCache()
    model(ids, past_key_values=past)
    ours = served(load_model(base))
    rows = BatchedRows(ours, 8)
    rows.reserve(8, CONTEXT + REPETITIONS + 1)
    for _ in range(8):
        rows.add()
    rows.run(ids.tolist(), [None] * 8)
    token = torch.full((8, 1), 9)
    seconds = in_turn(
        {
            "transformers": lambda: model(token, past_key_values=past),
            "ours": lambda: rows.run(token.tolist(), [None] * 8),
        }
    )
    tell(
        "against transformers",
        model="embedded",
        streams=8,
        times_as_fast=seconds["transformers"] / seconds["ours"],
    )


def through_the_engine(base: Path) -> None:
    """Time to the first token, wall clock: a prompt of 900 ids new and kept, an adapter new and
    loaded."""
    with running() as harness, tempfile.TemporaryDirectory() as directory:
        first_token_s(harness, base, 1)
        cold, hit = [], []
        for seed in range(8):
            ids = [5 + (7 * place * (seed + 1) + seed) % 900 for place in range(900)]
            cold.append(first_token_s(harness, base, [*ids, 8, 9]))
            hit.append(first_token_s(harness, base, [*ids, 10, 11]))
        tell(
            "first token, 900 ids kept",
            cold_ms=1e3 * min(cold),
            hit_ms=1e3 * min(hit),
            times_as_fast=min(cold) / min(hit),
        )
        cold, hit = [], []
        for seed in range(8):
            adapter = save_adapter(base, Path(directory) / str(seed), seed)
            for times in (cold, hit):
                times.append(first_token_s(harness, base, [5, 6, 7], adapter=adapter))
        tell("first token, adapter", cold_ms=1e3 * min(cold), loaded_ms=1e3 * min(hit))


def first_token_s(harness: Harness, base: Path, ids: object, **options: object) -> float:
    prompt = ids if isinstance(ids, list) else [5, 6, 7]
    answer = harness.ask(greedy(base, prompt, 1, **options))
    assert isinstance(answer.end, Done), answer.end
    return answer.end.first_token_s


@contextmanager
def running() -> Iterator[Harness]:
    harness = Harness(Limits(device="cpu"))
    harness.engine.start()
    try:
        yield harness
    finally:
        harness.engine.close()


if __name__ == "__main__":
    main()
