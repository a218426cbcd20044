"""What a model says of a whole text: how likely its ids are, and where it lies among others."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.errors import EngineError
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter

# Positions whose logits exist at once: 128 of a vocabulary of 150,000 are 77 MB in fp32.
SLICE = 128


def hidden_states(model: CausalModel, lora: Adapter | None, ids: list[int]) -> Tensor:
    """(T, E)"""
    return model.hidden(torch.tensor([ids], device=model.device), lora=lora)[0]


def score(
    model: CausalModel,
    lora: Adapter | None,
    ids: list[int],
    first: int,
    num_top: int,
    least: float,
) -> list[Any]:
    """[logprob, [[id, logprob], ...]] of each id from place `first` on, with the most likely ids
    there; a logprob is `least` at least, which is finite."""
    hidden_TE = hidden_states(model, lora, ids[:-1])[first - 1 :]
    results: list[Any] = []
    for start in range(0, len(hidden_TE), SLICE):
        logits_TV = model.logits(hidden_TE[start : start + SLICE]).float()
        if not bool(logits_TV.isfinite().all()):
            raise EngineError("The model's scores are not numbers; its weights are damaged.")
        logprobs_TV = F.log_softmax(logits_TV, dim=-1).clamp_(min=least)
        wanted = torch.tensor(ids[first + start :][: len(logits_TV)], device=logits_TV.device)
        chosen = logprobs_TV.gather(1, wanted[:, None])[:, 0].tolist()
        best = logprobs_TV.topk(min(num_top, logprobs_TV.shape[1]))
        tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        results += [
            [logprob, [list(pair) for pair in zip(*top, strict=True)]]
            for logprob, top in zip(chosen, tops, strict=True)
        ]
    return results


def embed(model: CausalModel, lora: Adapter | None, ids: list[int], pooling: str) -> list[float]:
    """The mean of the states of a text, or the last one, of length 1."""
    hidden_TE = hidden_states(model, lora, ids).float()
    pooled_E = hidden_TE.mean(0) if pooling == "mean" else hidden_TE[-1]
    if not bool(pooled_E.isfinite().all()):
        raise EngineError("The model's states are not numbers; its weights are damaged.")
    vector: list[float] = F.normalize(pooled_E, dim=0).tolist()
    return vector
