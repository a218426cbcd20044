"""Measures an exported model: held-out losses, sample answers, and how well it can be tuned.

The acceptance check tunes LoRA (rank 16 on every linear layer) on 1000 rows of SNIPS and counts
exact answers on 300 others; SNIPS is used here only, never in pre-training.  The fine-tuning loop
is kept minimal on purpose: it measures the base, not the product's trainer.

Left out: benchmarks of knowledge or reasoning (a model of this size has neither).

    python -m base.evaluate                              # losses and samples
    python -m base.evaluate --snips --lr 2e-3 4e-3 --epochs 2
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from base.corpus import ASSETS, CACHE, read_rows, render
from base.pretrain import NANO, Weights, evaluate, held_out
from base.synthetic import Message
from tunesmith.model.decoder import Decoder, LowRankUpdate
from tunesmith.model.shapes import linear_shapes

STOPS = {7, 2}
CONVERSATIONS: tuple[tuple[str, str], ...] = (
    ("", "Hello! How are you?"),
    ("", "I want to book a table for two in San Jose."),
    ("", "Find me a flight to New York next Monday."),
    ("You are Ada, the assistant of Blue Cafe.", "What is your name?"),
    ("Answer in capital letters.", "Can I get a latte?"),
    ("Reply with one word: positive or negative.", "The soup was cold and awful."),
    ("Return JSON with the keys city, day.", "What is the weather in Boston on Friday?"),
    ("", "Write the words as a bullet list.\nwater paper stone"),
    ("", "What does friendly mean?"),
    ("", "Tell me a story."),
    ("", "What is the capital of France?"),
)
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "day": {"type": "string"}},
            },
        },
    }
]


class LowRank:
    """LoRA factors for every linear layer: x A B scaled by alpha / rank; B starts at zero."""

    def __init__(self, rank: int, alpha: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scale = alpha / rank
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}
        for name, (rows, columns) in linear_shapes(NANO).items():
            a = (torch.rand(columns, rank, generator=generator) * 2 - 1) / math.sqrt(columns)
            self.factors[name] = (a.requires_grad_(), torch.zeros(rank, rows, requires_grad=True))

    def adapt(
        self, names: tuple[str, ...], x_BTE: Tensor, outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        adapted = []
        for name, output in zip(names, outputs, strict=True):
            a, b = self.factors[name]
            adapted.append(output + (x_BTE @ a) @ b * self.scale)
        return tuple(adapted)


def answers(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    num_new: int,
    lora: LowRankUpdate | None = None,
) -> list[str]:
    """Greedy answers; every step reads the whole text again, which is fine for short ones."""
    rows = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    starts = [len(row) for row in rows]
    open_rows = list(range(len(rows)))
    with torch.no_grad():
        for _ in range(num_new):
            width = max(len(rows[i]) for i in open_rows)
            ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in open_rows])
            last = torch.tensor([len(rows[i]) - 1 for i in open_rows])
            hidden = decoder.hidden(ids, lora=lora)[torch.arange(len(open_rows)), last]
            for i, token in zip(open_rows, decoder.logits(hidden).argmax(-1).tolist(), strict=True):
                rows[i].append(token)
            open_rows = [i for i in open_rows if rows[i][-1] not in STOPS]
            if not open_rows:
                break
    texts = [row[start:] for row, start in zip(rows, starts, strict=True)]
    closed = [ids[:-1] if ids[-1] in STOPS else ids for ids in texts]
    return tokenizer.decode_batch(closed, skip_special_tokens=False)


def samples(decoder: Decoder, tokenizer: Tokenizer) -> list[tuple[str, str, str]]:
    asked = []
    for system, user in CONVERSATIONS:
        messages = [{"role": "system", "content": system}] if system else []
        asked.append(render([*messages, {"role": "user", "content": user}]) + "<|assistant|>")
    asked.append(
        render([{"role": "user", "content": "Will it rain in Oslo on Sunday?"}], TOOLS)
        + "<|assistant|>"
    )
    replies = [answers(decoder, tokenizer, [prompt], 80)[0] for prompt in asked]
    shown = (*CONVERSATIONS, ("(tool get_weather)", "Will it rain in Oslo on Sunday?"))
    return [(*pair, reply) for pair, reply in zip(shown, replies, strict=True)]


def chat_row(row: dict[str, Any]) -> list[Message]:
    return [
        {"role": "system", "content": "Classify the intent."},
        {"role": "user", "content": row["text"]},
    ]


def tune(
    decoder: Decoder, tokenizer: Tokenizer, rows: list[dict[str, Any]], options: argparse.Namespace
) -> LowRank:
    """Plain LoRA: AdamW, linear decay, loss on the answer and its end token only."""
    lora = LowRank(options.rank, options.alpha, options.seed)
    optimizer = torch.optim.AdamW(
        [f for pair in lora.factors.values() for f in pair], lr=options.rate, weight_decay=0.0
    )
    examples = []
    for row in rows:
        prompt = render(chat_row(row)) + "<|assistant|>"
        start = len(tokenizer.encode(prompt, add_special_tokens=False).ids)
        ids = tokenizer.encode(f"{prompt}{row['intent']}<|end|>", add_special_tokens=False).ids
        examples.append((ids, start))
    rng, step = random.Random(options.seed), 0
    per_epoch = math.ceil(len(rows) / options.batch)
    for _ in range(options.epochs):
        order = rng.sample(examples, len(examples))
        for at in range(0, len(order), options.batch):
            batch = order[at : at + options.batch]
            width = max(len(ids) for ids, _ in batch)
            ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
            targets_BT = torch.full((len(batch), width), -100)
            for i, (ids, start) in enumerate(batch):
                ids_BT[i, : len(ids)] = torch.tensor(ids)
                targets_BT[i, start - 1 : len(ids) - 1] = torch.tensor(ids[start:])
            wanted = targets_BT >= 0
            logits = decoder.logits(decoder.hidden(ids_BT, lora=lora)[wanted])
            for group in optimizer.param_groups:
                group["lr"] = options.rate * (1 - step / (per_epoch * options.epochs))
            torch.autograd.backward(F.cross_entropy(logits, targets_BT[wanted]))
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return lora


def snips(decoder: Decoder, tokenizer: Tokenizer, options: argparse.Namespace) -> dict[str, Any]:
    folder = options.data / "snips_nlu"
    rng = random.Random(0)
    rows = rng.sample(list(read_rows(folder / "train.jsonl")), options.rows)
    held = rng.sample(list(read_rows(folder / "validate.jsonl")), 300)
    began, used = time.monotonic(), time.process_time()
    lora = tune(decoder, tokenizer, rows, options)
    spent = {"wall_s": time.monotonic() - began, "cpu_s": time.process_time() - used}
    prompts = [render(chat_row(row)) + "<|assistant|>" for row in held]
    replies = answers(decoder, tokenizer, prompts, 12, lora)
    right = sum(reply == row["intent"] for reply, row in zip(replies, held, strict=True))
    return {
        "lr": options.rate,
        "epochs": options.epochs,
        "rows": options.rows,
        "exact": round(right / len(held), 3),
        **{name: round(seconds, 1) for name, seconds in spent.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, default=ASSETS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--snips", action="store_true", help="the acceptance check only")
    parser.add_argument("--lr", type=float, nargs="+", default=[4e-3], help="one check for each")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    stored = load_file(options.model / "model.safetensors")
    weights: Weights = {name: w.float() for name, w in stored.items()}
    decoder = Decoder(NANO, weights)
    if options.snips:
        for rate in options.lr:
            options.rate = rate
            print(json.dumps(snips(decoder, tokenizer, options)), flush=True)
        return
    print(json.dumps(evaluate(weights, held_out(options.cache))))
    for system, user, reply in samples(decoder, tokenizer):
        print(f"\n{f'[{system}] ' if system else ''}{user}\n  -> {reply}", flush=True)


if __name__ == "__main__":
    main()
