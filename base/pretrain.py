"""Pre-trains tunesmith-nano on CPU within a given number of minutes, and resumes after a stop.

The model and its forward pass are the project's own decoder.  The learning rate warms up, stays
constant and then falls in a line to zero (WSD); the fall is tied to the wall clock, so the run
ends when it was promised to end however busy the machine is.  The first 85 % of the time reads
rows of 256 tokens, the rest rows of 1024, so that long conversations are not new to it.  The
whole loss is one compiled function: it doubles the speed on two cores, since a model this small
waits for memory between operations and not for arithmetic.  Each core runs a process of its own
on its part of the batch: the two meet once a step, where two threads would meet at every
operation, which on a shared machine means waiting for the slower one each time.

Left out: sharding, gradient accumulation and clipping (never needed with Muon here), dropout
(each text is seen a few times only), loss masks (user turns are text worth learning too).

    python -m base.corpus && nohup python -m base.pretrain --minutes 100 --workers 2 &

The same command goes on from the last checkpoint.  SIGTERM saves first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Two OpenMP threads that spin while they wait starve each other on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from base.corpus import CACHE
from tunesmith.model.decoder import Decoder
from tunesmith.model.families import DecoderConfig
from tunesmith.model.fresh import init_weights

NANO = DecoderConfig(
    vocab_size=4096,
    hidden_size=192,
    intermediate_size=512,
    num_layers=6,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    max_positions=1024,
)
HELD = ("sgd", "star", "books", "made")
HELD_ROWS = 64
LOGITS_CHUNK = 2048
Weights = dict[str, Tensor]


@dataclass
class Position:
    """Where the run stands; with the weights and optimizer state, all that a resume needs."""

    step: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    length: int = 256
    index: int = 0
    row: int = 0


# -- data ---------------------------------------------------------------------------------------


def rows_of(path: Path, length: int, seed: int) -> Iterator[Tensor]:
    """Every row of a pass once, in an order that depends on the seed alone."""
    ids = torch.from_numpy(np.fromfile(path, np.uint16).astype(np.int64))
    num = (len(ids) - 1) // length
    for row in torch.randperm(num, generator=torch.Generator().manual_seed(seed)).tolist():
        yield ids[row * length : (row + 1) * length + 1]


def batches(cache: Path, at: Position, tokens_per_step: int) -> Iterator[Tensor]:
    """Batches from where `at` stands, which it moves; longer rows begin with the next pass."""
    passes = sorted(cache.glob("pass_*.bin"))
    length = at.length
    while True:
        rows = rows_of(passes[at.index % len(passes)], length, seed=at.index)
        for _ in range(at.row):
            next(rows, None)
        batch: list[Tensor] = []
        for row in rows:
            batch.append(row)
            if len(batch) * length >= tokens_per_step:
                at.row += len(batch)
                yield torch.stack(batch)
                batch = []
            if at.length != length:
                break
        at.index, at.row, length = at.index + 1, 0, at.length


def held_out(cache: Path, length: int = 256) -> dict[str, Tensor]:
    sets: dict[str, Tensor] = {}
    for name in HELD:
        ids = np.fromfile(cache / f"held_{name}.bin", np.uint16).astype(np.int64)
        num = min(HELD_ROWS, (len(ids) - 1) // length)
        starts = np.linspace(0, len(ids) - length - 1, num).astype(int)
        sets[name] = torch.from_numpy(np.stack([ids[s : s + length + 1] for s in starts]))
    return sets


# -- loss and optimisers ------------------------------------------------------------------------


def loss_of(weights: Weights, ids_BT: Tensor) -> Tensor:
    """Mean next-token loss, fp32 masters computed in bf16; logits are made a chunk at a time."""
    with torch.autocast("cpu", torch.bfloat16):
        decoder = Decoder(NANO, weights)
        hidden = decoder.hidden(ids_BT[:, :-1]).flatten(0, 1)
        targets = ids_BT[:, 1:].flatten()
        total = torch.zeros(())
        chunks = torch.split(hidden, LOGITS_CHUNK), torch.split(targets, LOGITS_CHUNK)
        for part, wanted in zip(*chunks, strict=True):
            scores = decoder.logits(part).float()
            total = total + F.cross_entropy(scores, wanted, reduction="sum")
    return total / targets.numel()


def evaluate(weights: Weights, sets: dict[str, Tensor]) -> dict[str, float]:
    with torch.no_grad():
        return {name: round(loss_of(weights, ids).item(), 4) for name, ids in sets.items()}


def make_optimizers(weights: Weights, kind: str, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    inner = [w for name, w in weights.items() if w.ndim == 2 and "embed" not in name]
    rest = [w for name, w in weights.items() if w.ndim != 2 or "embed" in name]
    if kind == "muon":
        muon = torch.optim.Muon(
            inner, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw", ns_steps=5
        )
        adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        return [muon, adam]
    groups = [{"params": inner, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)]


def rate(step: int, warmup: int, progress: float, decay: float) -> float:
    """Factor on the learning rate: up, flat, and down to zero over the last `decay` of the time."""
    return min(1.0, (step + 1) / warmup, max(0.0, (1 - progress) / decay))


# -- checkpoints --------------------------------------------------------------------------------


def save(path: Path, weights: Weights, optimizers: list[Any], at: Position) -> None:
    state = {
        "weights": {name: w.detach() for name, w in weights.items()},
        "optimizers": [one.state_dict() for one in optimizers],
        "position": asdict(at),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)


def restore(path: Path, weights: Weights, optimizers: list[Any]) -> Position:
    if not path.exists():
        return Position()
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, w in weights.items():
            w.copy_(state["weights"][name])
    for one, saved in zip(optimizers, state["optimizers"], strict=True):
        one.load_state_dict(saved)
    return Position(**state["position"])


class Stop:
    """Turns SIGTERM and SIGINT into a flag, read between two steps."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


class Team:
    """The processes of a run: all hold the same weights and take the same steps."""

    def __init__(self, rank: int, size: int, meeting: Path) -> None:
        self.rank, self.size = rank, size
        if size > 1:
            url = f"file://{meeting.resolve()}"
            dist.init_process_group("gloo", init_method=url, rank=rank, world_size=size)

    def told(self, *values: float) -> list[float]:
        """What the first process says: clocks differ, and all must decide alike."""
        said = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(said, 0)
        return [float(value) for value in said]

    def average(self, weights: Weights) -> None:
        """Averages the gradients in one message."""
        if self.size == 1:
            return
        grads = [w.grad for w in weights.values() if w.grad is not None]
        message = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(message)
        parts = torch.split(message / self.size, [grad.numel() for grad in grads])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))


def logger(path: Path) -> Callable[..., None]:
    def log(**entry: object) -> None:
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")

    return log


def train(args: argparse.Namespace, team: Team) -> None:
    torch.set_num_threads(args.threads)
    first = team.rank == 0
    checkpoint, log = args.run / "checkpoint.pt", logger(args.run / "log.jsonl")
    weights = {k: w.requires_grad_() for k, w in init_weights(NANO, args.seed).items()}
    optimizers = make_optimizers(weights, args.optimizer, args.lr)
    at = restore(checkpoint, weights, optimizers)
    loss_fn = torch.compile(loss_of, dynamic=False)
    stream, sets, stop = batches(args.cache, at, args.tokens_per_step), held_out(args.cache), Stop()
    if first:
        log(event="start", **asdict(at), options={k: str(v) for k, v in vars(args).items()})

    began, saved, marked = time.monotonic() - at.elapsed_s, time.monotonic(), (0.0, 0)
    losses: list[Tensor] = []
    while True:
        now = (time.monotonic() - began) / (60 * args.minutes)
        progress, stopped = team.told(now, stop.asked)
        if progress >= 1 or stopped:
            break
        at.length = 1024 if progress > 1 - args.long else 256
        ids_BT = next(stream)
        factor = rate(at.step, args.warmup, progress, args.decay)
        for one in optimizers:
            for group in one.param_groups:
                group["lr"] = args.lr * factor
        loss = loss_fn(weights, ids_BT[team.rank :: team.size])
        torch.autograd.backward(loss)
        team.average(weights)
        for one in optimizers:
            one.step()
            one.zero_grad()
        losses.append(loss.detach())
        at.step, at.tokens = at.step + 1, at.tokens + ids_BT[:, 1:].numel()
        at.elapsed_s = time.monotonic() - began
        if not first:
            continue
        if at.step % 20 == 0:
            speed = (at.tokens - marked[1]) / (at.elapsed_s - marked[0])
            log(
                step=at.step,
                tokens=at.tokens,
                elapsed_s=round(at.elapsed_s, 1),
                loss=round(torch.stack(losses).mean().item(), 4),
                lr=args.lr * factor,
                tokens_per_s=round(speed) if marked[1] else None,
            )
            losses, marked = [], (at.elapsed_s, at.tokens)
        if at.step % args.evaluate_steps == 0:
            log(step=at.step, tokens=at.tokens, held=evaluate(weights, sets))
        if time.monotonic() - saved > args.save_s:
            save(checkpoint, weights, optimizers, at)
            saved = time.monotonic()
    if first:
        save(checkpoint, weights, optimizers, at)
        log(event="stopped" if stopped else "done", **asdict(at), held=evaluate(weights, sets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--run", type=Path, default=CACHE / "run")
    parser.add_argument("--minutes", type=float, default=100.0, help="the whole run")
    parser.add_argument("--workers", type=int, default=2, help="processes, one a core")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--tokens-per-step", type=int, default=12288)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--decay", type=float, default=0.45, help="last part of the time")
    parser.add_argument("--long", type=float, default=0.15, help="last part, rows of 1024")
    parser.add_argument("--save-s", type=float, default=180.0)
    parser.add_argument("--evaluate-steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    meeting = args.run / "meeting"
    others: list[subprocess.Popen[bytes]] = []
    if args.rank == 0:
        meeting.unlink(missing_ok=True)
        command = [sys.executable, "-m", "base.pretrain", *sys.argv[1:], "--rank"]
        others = [subprocess.Popen([*command, str(rank)]) for rank in range(1, args.workers)]
    train(args, Team(args.rank, args.workers, meeting))
    for other in others:
        other.wait()


if __name__ == "__main__":
    main()
