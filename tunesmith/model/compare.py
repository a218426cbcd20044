"""Two forms of one model, held against each other: log-probabilities of the same answers.

What is compared is every supervised token of some rows: the log-probability that each form gives
it. A form that lost something (a scale, a permutation, a tensor) is off by whole nats, one that was
only rounded by hundredths.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.render import Example
from tunesmith.model.decoder import LowRankUpdate
from tunesmith.model.load import CausalModel

# Positions whose logits are held at once.
CHUNK = 256


@dataclass(frozen=True)
class Difference:
    """Of two forms, over all supervised tokens, in nats."""

    largest: float
    mean: float

    @classmethod
    def between(cls, found: Sequence[Tensor], expected: Sequence[Tensor]) -> Difference:
        apart = torch.cat([(a - b).abs() for a, b in zip(found, expected, strict=True)])
        return cls(float(apart.max()), float(apart.mean()))


@torch.no_grad()
def log_probs(
    model: CausalModel, rows: Sequence[Example], lora: LowRankUpdate | None = None
) -> list[Tensor]:
    """For each row the log-probabilities (N) of its supervised tokens, in fp32."""
    return [_of_row(model, row, lora) for row in rows]


def _of_row(model: CausalModel, row: Example, lora: LowRankUpdate | None) -> Tensor:
    ids_1T = torch.tensor([row.ids[:-1]], device=model.device)
    hidden_TE = model.hidden(ids_1T, lora=lora)[0]
    index_N, targets_N = supervised(row)
    found = []
    for start in range(0, len(index_N), CHUNK):
        chunk = slice(start, start + CHUNK)
        logits_NV = model.logits(hidden_TE[index_N[chunk].to(model.device)])
        found.append(_chosen(logits_NV.float().cpu(), targets_N[chunk]))
    return torch.cat(found)


def supervised(row: Example) -> tuple[Tensor, Tensor]:
    """Positions (N) that predict a supervised token, and those tokens (N)."""
    index_N = torch.tensor(row.weights)[1:].nonzero()[:, 0]
    return index_N, torch.tensor(row.ids)[1:][index_N]


def _chosen(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return logits_NV.log_softmax(-1).gather(1, targets_N[:, None])[:, 0]


def has_llama_cpp() -> bool:
    return importlib.util.find_spec("llama_cpp") is not None


class LlamaCpp:
    """A GGUF file as llama.cpp runs it."""

    def __init__(self, path: Path, num_positions: int) -> None:
        library: Any = importlib.import_module("llama_cpp")
        self._model: Any = library.Llama(
            model_path=str(path), n_ctx=num_positions, logits_all=True, verbose=False
        )

    def log_probs(self, rows: Sequence[Example]) -> list[Tensor]:
        return [self._of_row(row) for row in rows]

    def reads_alike(self, texts: Sequence[str], encode: Callable[[str], list[int]]) -> int:
        """How many of the texts become the same ids as with `encode`."""
        return sum(
            self._model.tokenize(text.encode(), add_bos=False, special=False) == encode(text)
            for text in texts
        )

    def _of_row(self, row: Example) -> Tensor:
        self._model.reset()
        self._model.eval(row.ids[:-1])
        index_N, targets_N = supervised(row)
        logits_TV = torch.from_numpy(self._model.scores[: len(row.ids) - 1])
        return _chosen(logits_TV[index_N], targets_N)
