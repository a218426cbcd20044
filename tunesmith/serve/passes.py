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

from tunesmith.errors import EngineError, TunesmithError
from tunesmith.model.load import CausalModel
from tunesmith.model.readout import embed, score
from tunesmith.serve.protocol import MIN_LOGPROB, PassRequest, ScoreRequest
from tunesmith.serve.residents import Lease
from tunesmith.serve.server import IsLeft, Reply

log = logging.getLogger(__name__)


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
                first, num_top = len(request.prompt_ids), request.top_logprobs
                return work, score(model, lora, ids, first, num_top, MIN_LOGPROB)
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


def misfit(request: PassRequest, model: CausalModel) -> str | None:
    """Why this model cannot take the request, if it cannot."""
    if not all(0 <= token < model.vocab_size for ids in request.inputs for token in ids):
        return f"The request holds token ids outside 0..{model.vocab_size - 1}."
    longest = max(map(len, request.inputs), default=0)
    if longest > model.max_positions:
        return f"An input has {longest} tokens; the model's context is {model.max_positions}."
    return None
