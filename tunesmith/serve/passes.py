"""Passes over whole sequences, with nothing generated: scores and embeddings.

They run between the lanes' passes, one sequence at a time, so a long one delays running answers by
its own pass and no more.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.errors import EngineError, TunesmithError
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.serve.protocol import MIN_LOGPROB, PassRequest, ScoreRequest
from tunesmith.serve.residents import Lease
from tunesmith.serve.server import IsLeft, Reply

log = logging.getLogger(__name__)

# Positions whose logits exist at once: 128 of a vocabulary of 150,000 are 77 MB in fp32.
SLICE = 128


@dataclass(eq=False)
class Pass:
    """A request on its way; `reply` gets its result, a TunesmithError, or None once it is left."""

    request: PassRequest
    lease: Lease
    reply: Reply
    is_left: IsLeft
    results: list[Any] = field(default_factory=list)


class Passes:
    """Waiting passes; `step` computes one sequence and returns a request that has ended."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._waiting: deque[Pass] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, work: Pass) -> None:
        self._waiting.append(work)

    def step(self) -> tuple[Pass, Any] | None:
        """A request and its result or error, once its last sequence is computed."""
        work = self._waiting.popleft()
        if work.is_left():
            return work, None
        request, model, lora = work.request, work.lease.model, work.lease.lora
        torch.set_num_threads(self._num_threads)
        try:
            ids = request.inputs[len(work.results)]
            if isinstance(request, ScoreRequest):
                return work, score(model, lora, ids, len(request.prompt_ids), request.top_logprobs)
            work.results.append(embed(model, lora, ids, request.pooling))
        except TunesmithError as error:
            return work, error
        except Exception as error:  # out of memory, most likely
            log.exception("a score or an embedding")
            return work, EngineError(f"The engine failed while computing: {type(error).__name__}.")
        if len(work.results) == len(request.inputs):
            return work, work.results
        self._waiting.append(work)  # behind the others: many inputs do not hold up a single one
        return None


def hidden_states(model: CausalModel, lora: Adapter | None, ids: list[int]) -> Tensor:
    """(T, E)"""
    return model.hidden(torch.tensor([ids], device=model.device), lora=lora)[0]


def score(
    model: CausalModel, lora: Adapter | None, ids: list[int], first: int, num_top: int
) -> list[Any]:
    """[logprob, [[id, logprob], ...]] of each id from place `first` on, as `TokenLogprob`."""
    hidden_TE = hidden_states(model, lora, ids[:-1])[first - 1 :]
    results: list[Any] = []
    for start in range(0, len(hidden_TE), SLICE):
        logits_TV = model.logits(hidden_TE[start : start + SLICE]).float()
        if not bool(logits_TV.isfinite().all()):
            raise EngineError("The model's scores are not numbers; its weights are damaged.")
        logprobs_TV = F.log_softmax(logits_TV, dim=-1).clamp_(min=MIN_LOGPROB)
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
    hidden_TE = hidden_states(model, lora, ids).float()
    pooled_E = hidden_TE.mean(0) if pooling == "mean" else hidden_TE[-1]
    if not bool(pooled_E.isfinite().all()):
        raise EngineError("The model's states are not numbers; its weights are damaged.")
    vector: list[float] = F.normalize(pooled_E, dim=0).tolist()
    return vector


def misfit(request: PassRequest, model: CausalModel) -> str | None:
    """Why this model cannot take the request, if it cannot."""
    if not all(0 <= token < model.vocab_size for ids in request.inputs for token in ids):
        return f"The request holds token ids outside 0..{model.vocab_size - 1}."
    longest = max(map(len, request.inputs), default=0)
    if longest > model.max_positions:
        return f"An input has {longest} tokens; the model's context is {model.max_positions}."
    return None
