"""Our step on the rows and the model of `bench/train.py`; prints one JSON line, as the peers do."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from without import TECHNIQUES

from tunesmith.data.render import Example
from tunesmith.model import memory
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.train import attention, full
from tunesmith.train.batches import Corpus
from tunesmith.train.forecast import operations, product_rate
from tunesmith.train.full import FullWeights
from tunesmith.train.objective import Supervised
from tunesmith.train.optimizer import AdamW
from tunesmith.train.plan import MAX_MICRO_TOKENS
from tunesmith.train.step import Forward, Trained, accumulate

WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, help="LoRA from here; without it, full fine-tuning")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--without", choices=TECHNIQUES, help="leave one technique out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.without:
        TECHNIQUES[options.without]()
    memory.keep_freed_memory()
    corpus = Corpus(
        Example(row["input_ids"], [float(label >= 0) for label in row["labels"]], number)
        for number, row in enumerate(map(json.loads, options.rows.read_text().splitlines()), 1)
    )
    dtype = torch.float32 if options.dtype == "float32" else torch.bfloat16
    forward, trained, optimizer = build(options.model, options.adapter, dtype)
    objective = Supervised(corpus)
    losses: list[float] = []
    num_tokens = 0
    wall_s = cpu_s = 0.0
    for step in range(options.steps):
        if step == WARM_UP:
            wall_s, cpu_s = -time.perf_counter(), -time.process_time()
        first = step * options.batch
        rows = [row % corpus.num_rows for row in range(first, first + options.batch)]
        at_once = MAX_MICRO_TOKENS["cpu"]
        means = accumulate(forward, trained, optimizer, objective, rows, at_once)
        optimizer.update(options.learning_rate * (options.steps - step) / options.steps)
        losses.append(means.loss)
        num_tokens += corpus.num_tokens(rows) if step >= WARM_UP else 0
    wall_s, cpu_s = wall_s + time.perf_counter(), cpu_s + time.process_time()
    everything = range(corpus.num_rows)
    share = corpus.num_supervised(everything) / corpus.num_tokens(everything)
    peak = memory.peak_bytes(forward.model.device)
    limit = product_rate(forward.model.device, dtype, forward.model.hidden_size)
    report = {
        "tokens": num_tokens,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "peak_mb": peak / 2**20,
        "limit_share": num_tokens / wall_s * operations(forward, trained, share) / limit,
        "loss": losses,
    }
    print(json.dumps(report))


def build(base: Path, adapter: Path | None, dtype: torch.dtype) -> tuple[Forward, Trained, AdamW]:
    """LoRA from a saved adapter, or every weight."""
    if adapter is None:
        weights = FullWeights(full.fresh(base, torch.float32, "cpu", None), dtype)
        kind, _ = attention.choose(weights.model)
        return Forward(weights.model, kind, weights.head_gradient), weights, weights.optimizer
    model = load_model(base, dtype=dtype)
    trained = Adapter.load(adapter, model.linears, untrained_ok=True).train()
    return Forward(model, attention.choose(model)[0]), trained, AdamW(trained.parameters())


if __name__ == "__main__":
    main()
