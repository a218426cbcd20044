"""The engine beside others that generate on a CPU: the same model, the same ids, by turns.

    python -m bench.engine_peers --transformers PYTHON --llama PYTHON [--threads 2]

Each engine is a process that stays loaded. A turn is a batch of brief prompts and 25 ids for each,
all greedy; another turn stops after the first id, so that the difference is 24 steps of decoding;
and one has long prompts and an id each, which is prefill. Each repetition has other prompts. Told
are medians, on the clock and in processor time, the share of what the machine could do with weights
of bf16 multiplied in fp32 (measured before each repetition), and how many of the ids are those of
our engine, which runs with weights as stored, in bf16, and in 8 bits. `bench/README.md` says how a
peer's environment is made.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.engine import NUM_ADAPTERS, RANK, limit_s, measure_limits, num_weights, tell
from bench.engine_models import adapter_gguf, base_gguf, random_adapter, random_base
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import load_model

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
NUM_PROMPT_IDS = 512
"""Of all streams together: one piece of prompts for every engine."""
STEPS = 24
BRIEF = 8
"""Ids of a prompt where steps are measured: they take little of the time."""
VOCABULARY = 4000
"""Ids are drawn below this one."""


@dataclass
class Times:
    """Of one engine in one case, an entry for each repetition; seconds."""

    wall_prefill: list[float] = field(default_factory=list)
    wall_step: list[float] = field(default_factory=list)
    cpu_prefill: list[float] = field(default_factory=list)
    cpu_step: list[float] = field(default_factory=list)
    ids: list[list[list[int]]] = field(default_factory=list)

    def add(self, prompts: dict[str, Any], short: dict[str, Any], whole: dict[str, Any]) -> None:
        self.wall_prefill.append(prompts["wall_s"])
        self.cpu_prefill.append(prompts["cpu_s"])
        self.wall_step.append((whole["wall_s"] - short["wall_s"]) / STEPS)
        self.cpu_step.append((whole["cpu_s"] - short["cpu_s"]) / STEPS)
        self.ids.append(whole["ids"])


class Peer:
    """An engine's process."""

    def __init__(self, name: str, command: Sequence[object], scratch: Path) -> None:
        self.name = name
        self._log = scratch / "peers.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self._read()

    def turn(self, prompts: list[list[int]], num_tokens: int, num_adapters: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        given = {"prompts": prompts, "tokens": num_tokens, "adapters": num_adapters}
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{self.name} ended: {last}")
        found: dict[str, Any] = json.loads(line)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transformers", help="the Python of an environment with transformers")
    parser.add_argument("--llama", help="the Python of an environment with llama-cpp-python")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--streams", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--adapters", type=int, nargs="*", default=[0, NUM_ADAPTERS])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tell("machine", load=os.getloadavg()[0], cores=os.cpu_count(), threads=options.threads)
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as directory:
        scratch = Path(directory)
        base = random_base(scratch / "base", options.layers)
        model = load_model(base)
        assert isinstance(model, Decoder)
        adapters = [
            random_adapter(base, scratch / f"adapter{seed}", RANK, seed)
            for seed in range(NUM_ADAPTERS)
        ]
        size = num_weights(model), model.dtype.itemsize
        del model
        for num_adapters in options.adapters:
            commands = engines(options, base, adapters if num_adapters else [], scratch)
            with started(commands, scratch) as peers:
                for num_streams in options.streams:
                    compare(peers, num_streams, num_adapters, size, options)


def engines(
    options: argparse.Namespace, base: Path, adapters: list[Path], scratch: Path
) -> dict[str, list[object]]:
    """Commands of the engines that take part, by name; ours first."""
    threads = ["--threads", options.threads]
    given = ["--adapters", *adapters] if adapters else []
    ours = [sys.executable, PEERS / "engine_tunesmith.py", "--model", base]
    found: dict[str, list[object]] = {"tunesmith": [*ours, *threads, *given]}
    found["tunesmith int8"] = [*ours, "--int8", *threads, *given]
    if options.transformers:
        runner = [options.transformers, PEERS / "engine_transformers.py", "--model", base]
        ways = ("peft",) if adapters else ("continuous", "generate")
        for way in ways:
            found[f"transformers {way}"] = [*runner, *threads, "--way", way, *given]
    if options.llama:
        for kind in ("f32", "bf16", "q8_0"):
            file = base_gguf(base, scratch / f"{kind}.gguf", kind)
            converted = [adapter_gguf(base, each, each / "adapter.gguf") for each in adapters]
            runner = [options.llama, PEERS / "engine_llama.py", "--model", file]
            given = ["--adapters", *converted] if converted else []
            found[f"llama.cpp {kind}"] = [*runner, *threads, *given]
    return found


@contextmanager
def started(commands: dict[str, list[object]], scratch: Path) -> Iterator[list[Peer]]:
    with ExitStack() as stack:
        peers = []
        for name, command in commands.items():
            peers.append(Peer(name, command, scratch))
            stack.callback(peers[-1].close)
        yield peers


def compare(
    peers: list[Peer],
    num_streams: int,
    num_adapters: int,
    size: tuple[int, int],
    options: argparse.Namespace,
) -> None:
    length = NUM_PROMPT_IDS // num_streams
    times = {peer.name: Times() for peer in peers}
    shares: dict[str, list[float]] = {peer.name: [] for peer in peers}
    rng = random.Random(num_streams)
    for peer in peers:  # they warm up
        peer.turn(prompts_of(rng, num_streams, 8), 2, num_adapters)
    for _ in range(options.repetitions):
        long = prompts_of(rng, num_streams, length)
        brief = [prompts_of(rng, num_streams, BRIEF) for _ in range(2)]
        limit = limit_s(*size, num_streams, measure_limits(options.threads))
        for peer in peers:
            prefill = peer.turn(long, 1, num_adapters)
            short = peer.turn(brief[0], 1, num_adapters)
            whole = peer.turn(brief[1], 1 + STEPS, num_adapters)
            times[peer.name].add(prefill, short, whole)
            # As the limits were measured.
            found = times[peer.name]
            step_s = (found.cpu_step if options.threads == 1 else found.wall_step)[-1]
            shares[peer.name].append(limit / step_s)
    report(times, shares, num_streams, num_adapters)


def prompts_of(rng: random.Random, number: int, length: int) -> list[list[int]]:
    return [[rng.randrange(8, VOCABULARY) for _ in range(length)] for _ in range(number)]


def report(
    times: dict[str, Times], shares: dict[str, list[float]], num_streams: int, num_adapters: int
) -> None:
    """Ratios are of our time to theirs within each repetition."""
    ours = times["tunesmith"]
    for name, theirs in times.items():
        tell(
            "engines",
            engine=name,
            streams=num_streams,
            adapters=num_adapters,
            decode_tokens_s=num_streams / statistics.median(theirs.wall_step),
            share_of_limit=statistics.median(shares[name]),
            we_are_times_as_fast=ratio(theirs.wall_step, ours.wall_step),
            in_cpu_time=ratio(theirs.cpu_step, ours.cpu_step),
            prefill_tokens_s=NUM_PROMPT_IDS / statistics.median(theirs.wall_prefill),
            prefill_times_as_fast=ratio(theirs.wall_prefill, ours.wall_prefill),
            same_ids=same(theirs.ids, ours.ids),
        )


def ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(theirs, ours, strict=True))


def same(theirs: list[list[list[int]]], ours: list[list[list[int]]]) -> float:
    """The share of answers that are the same, id by id."""
    pairs = [
        one == other
        for each, mine in zip(theirs, ours, strict=True)
        for one, other in zip(each, mine, strict=True)
    ]
    return sum(pairs) / len(pairs)


if __name__ == "__main__":
    main()
