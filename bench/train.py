"""Speed and memory of training against other trainers, on a CPU: one command, ratios of one run.

    make bench-train TRL=/path/to/trl/bin/python LLAMAFACTORY=/path/to/lf/bin/python

Every trainer learns the same rows (token ids and labels) with the same model and the same starting
adapter, in processes that take turns; medians of the repetitions are told. Without a peer's Python
our own figures are told alone. bench/README.md says how a peer's environment is made.

`--ablate` leaves out one technique at a time instead, `--job` compares a whole small job: from
`jobs.create` to succeeded on a server that is up, and TRL's script from its start to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import job_latency
from peers.without import TECHNIQUES

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
ROWS = ROOT / "tests" / "data" / "sgd_chat.jsonl"
NANO = ROOT / "tunesmith" / "assets" / "nano"
RANK, ALPHA = 16, 32.0
# A run that takes longer is ended, and told as such.
LIMIT_S = 600

SHAPES: dict[str, dict[str, Any]] = {
    "m15": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 288,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    },
    "qwen0.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
    },
}


@dataclass(frozen=True)
class Case:
    name: str
    shape: str
    is_lora: bool
    batch: int
    steps: int
    """Of which the first two warm up."""


CASES = (
    Case("LoRA, m15", "m15", True, 8, 14),
    Case("full, m15", "m15", False, 8, 10),
    Case("LoRA, Qwen2.5-0.5B shape", "qwen0.5b", True, 4, 4),
)


@dataclass
class Found:
    """Of one trainer in one case, one entry a repetition."""

    tokens_per_s: list[float] = field(default_factory=list)
    tokens_per_cpu_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    limit_share: list[float] = field(default_factory=list)

    def add(self, report: dict[str, Any]) -> None:
        self.tokens_per_s.append(report["tokens"] / report["wall_s"])
        self.tokens_per_cpu_s.append(report["tokens"] / report["cpu_s"])
        self.peak_mb.append(report["peak_mb"])
        self.limit_share.append(report.get("limit_share", 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trl", help="the Python of TRL's environment")
    parser.add_argument("--llamafactory", help="the Python of LLaMA-Factory's environment")
    parser.add_argument("--ablate", action="store_true", help="leave out one technique at a time")
    parser.add_argument("--job", action="store_true", help="a whole job of ten rows")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", default="", help="words of the cases to run; all by default")
    options = parser.parse_args()
    from tunesmith.model.precision import multiplies_bf16

    # bf16 that is emulated is several times slower, for every trainer.
    dtypes = ["float32", "bfloat16"] if multiplies_bf16() else ["float32"]
    print(f"{options.threads} threads, {options.repetitions} repetitions, {' and '.join(dtypes)}")
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as scratch:
        if options.job:
            compare_jobs(Path(scratch), options)
            return
        cases = [case for case in CASES if options.cases in case.name]
        for case in cases[:1] if options.ablate else cases:
            compare(case, Path(scratch), options, dtypes)


def compare(case: Case, scratch: Path, options: argparse.Namespace, dtypes: list[str]) -> None:
    """Runs the trainers in turns and prints the case's table."""
    base = make_base(case.shape, scratch / case.shape)
    adapter = make_adapter(base) if case.is_lora else None
    rows = write_rows(base, scratch / "rows.jsonl")
    common = ["--model", base, "--rows", rows, "--batch", case.batch, "--threads", options.threads]
    common += ["--adapter", adapter] if adapter else []
    common += ["--learning-rate", 1e-3 if case.is_lora else 1e-4]
    found: dict[str, Found] = {}
    load = os.getloadavg()[0]
    for _ in range(options.repetitions):
        for name, command in (ablations if options.ablate else runners)(case, options, dtypes):
            report = run([*command, *common, "--steps", case.steps])
            if report is not None:
                found.setdefault(name, Found()).add(report)
    print(f"\nload {load:.1f} before and {os.getloadavg()[0]:.1f} after", end="")
    print(f"\n{case.name}, medians (tokens/s; per CPU second; peak MB; share of the product limit)")
    for name, each in found.items():
        middle = [statistics.median(values) for values in vars(each).values()]
        share = f"{middle[3]:5.0%}" if middle[3] else "    -"
        print(f"  {name:<52}{middle[0]:8.0f}{middle[1]:8.0f}{middle[2]:8.0f}  {share}")
    if options.ablate:
        return
    for peer in ("TRL", "LLaMA-Factory"):
        tell_ratios(found, peer)
    if case.shape == "m15":
        tell_loss_equality([*common, "--steps", 6], options)


def runners(
    case: Case, options: argparse.Namespace, dtypes: list[str]
) -> Iterator[tuple[str, list[Any]]]:
    for dtype in dtypes:
        yield f"tunesmith {dtype}", [sys.executable, PEERS / "run_tunesmith.py", "--dtype", dtype]
        if options.trl:
            trl = [options.trl, PEERS / "run_trl.py", "--arrangement", "packing", "--dtype", dtype]
            tokens = 1024 if case.shape == "m15" else 512
            yield f"TRL packing {dtype}", [*trl, "--packed-tokens", tokens]
        if options.llamafactory and case.is_lora and case.shape == "m15":
            name, script = f"LLaMA-Factory neat_packing {dtype}", PEERS / "run_llamafactory.py"
            arranged = ["--arrangement", "neat_packing", "--dtype", dtype]
            yield name, [options.llamafactory, script, *arranged, "--packed-tokens", 1024]


def ablations(
    case: Case, options: argparse.Namespace, dtypes: list[str]
) -> Iterator[tuple[str, list[Any]]]:
    """All techniques, then all but one."""
    ours = [sys.executable, PEERS / "run_tunesmith.py", "--dtype", dtypes[-1]]
    yield "tunesmith", ours
    for name in TECHNIQUES:
        yield f"without {name}", [*ours, "--without", name]


def tell_ratios(found: dict[str, Found], peer: str) -> None:
    """Our best against the peer's best, by repetition, so that both saw the same machine."""
    ours = best(found, "tunesmith")
    theirs = best(found, peer)
    if ours is None or theirs is None:
        return
    for name in ("tokens_per_s", "tokens_per_cpu_s", "peak_mb"):
        pairs = zip(getattr(ours, name), getattr(theirs, name), strict=False)
        ratios = [one / other for one, other in pairs]
        print(f"  to {peer}: {name:<22}{statistics.median(ratios):8.2f}")


def best(found: dict[str, Found], prefix: str) -> Found | None:
    mine = [each for name, each in found.items() if name.startswith(prefix)]
    return max(mine, key=lambda each: statistics.median(each.tokens_per_s), default=None)


def tell_loss_equality(common: list[Any], options: argparse.Namespace) -> None:
    """The same rows in the same order, step by step."""
    ours = run([sys.executable, PEERS / "run_tunesmith.py", *common])
    for name, python, script, arrangement in (
        ("TRL", options.trl, "run_trl.py", "padding_free"),
        ("LLaMA-Factory", options.llamafactory, "run_llamafactory.py", "padding"),
    ):
        if not python:
            continue
        theirs = run([python, PEERS / script, "--arrangement", arrangement, *common])
        if ours and theirs:
            pairs = zip(ours["loss"], theirs["loss"], strict=True)
            apart = max(abs(one - other) for one, other in pairs)
            print(
                f"  loss in the same order as {name}, largest difference over "
                f"{len(ours['loss'])} steps: {apart:.1e}"
            )


def compare_jobs(scratch: Path, options: argparse.Namespace) -> None:
    """Seconds of ten rows and `auto` (ten epochs, 100 steps) on the embedded base, in turns."""
    from openai import OpenAI

    from tunesmith.cli.background import background_server

    texts = scratch / "train.jsonl"
    texts.write_text("".join(job_latency.row(number) for number in range(job_latency.NUM_ROWS)))
    base = scratch / "base"
    shutil.copytree(NANO, base)
    rows = write_rows(base, scratch / "rows.jsonl", texts)
    command = [options.trl, PEERS / "run_trl.py", "--arrangement", "padding", "--model", base]
    command += ["--rows", rows, "--adapter", make_adapter(base), "--threads", options.threads]
    command += ["--batch", 1, "--steps", 10 * job_latency.NUM_ROWS]
    ours, theirs = [], []
    with background_server(scratch / "data") as server:
        client = OpenAI(base_url=server.base_url, api_key=server.api_key)
        file = client.files.create(file=texts, purpose="fine-tune")
        job_latency.measure(client, file.id, server.data / "jobs")  # the server warms up
        for _ in range(options.repetitions):
            parts = job_latency.measure(client, file.id, server.data / "jobs")
            ours.append(parts["total"] - parts["first answer"])
            report = run(command) if options.trl else None
            theirs.append(report["process_s"] if report else float("nan"))
    print(f"\nten rows, whole job, seconds, load {os.getloadavg()[0]:.1f}")
    for name, values in (("tunesmith", ours), ("TRL's script", theirs)):
        print(f"  {name:<28}{statistics.median(values):8.2f}  of {[round(v, 2) for v in values]}")
    ratios = [other / one for one, other in zip(ours, theirs, strict=True)]
    print(f"  ratio {statistics.median(ratios):.2f}")


def run(command: list[Any]) -> dict[str, Any] | None:
    """The last line of what a runner prints; None where it failed, which is told."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    except subprocess.TimeoutExpired:
        print(f"  {Path(str(command[1])).name} did not end within {LIMIT_S} s")
        return None
    if done.returncode:
        print(f"  {Path(str(command[1])).name} failed: {done.stderr.strip()[-300:]}")
        return None
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    report["process_s"] = time.monotonic() - start
    return report


def make_base(shape: str, directory: Path) -> Path:
    """Random weights of that shape, with the embedded base's tokenizer."""
    from safetensors.torch import save_file

    from tunesmith.model.families import decoder_config
    from tunesmith.model.fresh import init_weights

    if directory.exists():
        return directory
    directory.mkdir()
    for path in NANO.iterdir():
        if path.name not in ("config.json", "model.safetensors") and path.is_file():
            (directory / path.name).write_bytes(path.read_bytes())
    config = {
        **SHAPES[shape],
        "max_position_embeddings": 4096,
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (directory / "config.json").write_text(json.dumps(config))
    dimensions = decoder_config(config)
    assert dimensions is not None
    weights = init_weights(dimensions, 0)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def make_adapter(base: Path) -> Path:
    from tunesmith.model.adapter_files import LoraSpec
    from tunesmith.model.load import load_model
    from tunesmith.model.lora import Adapter

    directory = base / "adapter"
    directory.mkdir()
    adapter = Adapter.create(load_model(base).linears, LoraSpec(RANK, ALPHA), 0)
    adapter.save(directory, base.name)
    return directory


def write_rows(base: Path, path: Path, texts: Path = ROWS) -> Path:
    """Ids and labels, so that every trainer learns the same tokens."""
    from tunesmith.data.check import Dataset, read_examples
    from tunesmith.data.formats import Limits
    from tunesmith.data.render import Renderer

    renderer = Renderer.load(base)
    examples = read_examples(
        texts, texts.name, "training_file", renderer, 4096, 1, Limits(), Dataset()
    )
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            pairs = zip(example.ids, example.weights, strict=True)
            labels = [number if weight > 0 else -100 for number, weight in pairs]
            file.write(json.dumps({"input_ids": list(example.ids), "labels": labels}) + "\n")
    return path


if __name__ == "__main__":
    main()
