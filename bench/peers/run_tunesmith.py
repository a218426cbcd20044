"""Our step on the rows and the model of `bench/train.py`; prints one JSON line, as the peers do."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tunesmith.model.threads import WAITING

os.environ.update(WAITING)

import torch
from task import Clock, parser, read_rows
from without import TECHNIQUES

from tunesmith.data.render import Example
from tunesmith.model import fixed, memory
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.train import attention, full
from tunesmith.train.batches import Corpus
from tunesmith.train.full import FullWeights
from tunesmith.train.objective import Supervised
from tunesmith.train.optimizer import AdamW
from tunesmith.train.plan import MAX_MICRO_TOKENS
from tunesmith.train.step import Forward, Trained, accumulate

# The product that all are measured by: positions, outputs over inputs, and how often it is formed.
TIMED_TOKENS, WIDENING, NUM_ROUNDS = 512, 3, 5


def main() -> None:
    found = parser()
    found.add_argument("--without", choices=TECHNIQUES, help="leave one technique out")
    options = found.parse_args()
    torch.set_num_threads(options.threads)
    if options.without:
        TECHNIQUES[options.without]()
    memory.keep_freed_memory()
    corpus = Corpus(
        Example(row["input_ids"], [float(label >= 0) for label in row["labels"]], number)
        for number, row in enumerate(read_rows(options.rows), 1)
    )
    dtype = torch.float32 if options.dtype == "float32" else torch.bfloat16
    forward, trained, optimizer = build(options.model, options.adapter, dtype)
    objective = Supervised(corpus)
    clock = Clock()
    num_tokens = 0
    for step in range(options.steps):
        clock.begin_step()
        first = step * options.batch
        rows = [row % corpus.num_rows for row in range(first, first + options.batch)]
        at_once = MAX_MICRO_TOKENS["cpu"]
        means = accumulate(forward, trained, optimizer, objective, rows, at_once)
        optimizer.update(options.learning_rate * (options.steps - step) / options.steps)
        num_tokens += corpus.num_tokens(rows) if clock.is_running else 0
        clock.end_step(means.loss)
    clock.stop()
    everything = range(corpus.num_rows)
    share = corpus.num_supervised(everything) / corpus.num_tokens(everything)
    limit = product_rate(forward.model.device, dtype, forward.model.hidden_size)
    speed = num_tokens / clock.wall_s * operations(forward, trained, share)
    clock.report(num_tokens, limit_share=speed / limit)


def build(base: Path, adapter: Path | None, dtype: torch.dtype) -> tuple[Forward, Trained, AdamW]:
    """LoRA from a saved adapter, or every weight."""
    if adapter is None:
        weights = FullWeights(full.fresh(base, torch.float32, "cpu", None), dtype)
        kind, _ = attention.choose(weights.model)
        return Forward(weights.model, kind, weights.head_gradient), weights, weights.optimizer
    is_fixed = dtype == torch.float32 and fixed.library() is not None
    model = load_model(base, dtype=dtype, fixed=is_fixed)
    trained = Adapter.load(adapter, model.linears, untrained_ok=True).train()
    return Forward(model, attention.choose(model)[0]), trained, AdamW(trained.parameters())


def operations(forward: Forward, trained: Trained, supervised_share: float) -> float:
    """Of one token, forwards and backwards: 2 a weight, and 2 more for each gradient."""
    model = forward.model
    last = model.last_linears if isinstance(model, Decoder) else ()
    shares = {name: supervised_share if name in last else 1.0 for name in model.linears}
    linears = sum(shares[name] * out * inputs for name, (out, inputs) in model.linears.items())
    weights = linears + model.vocab_size * model.hidden_size * supervised_share
    if forward.head_gradient is not None:
        return 6 * weights
    return 4 * weights + 6 * sum(parameter.numel() for parameter in trained.parameters())


def product_rate(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """Operations a second of a product as wide as the model's, with the threads that are set."""
    x = torch.zeros(TIMED_TOKENS, width, dtype=dtype, device=device)
    weight = torch.zeros(width, WIDENING * width, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(NUM_ROUNDS):
        start = time.perf_counter()
        (x @ weight)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * TIMED_TOKENS * WIDENING * width**2 / best


if __name__ == "__main__":
    main()
