"""The last check of a job: does the tuned model answer one training prompt, and stop?"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith.model.decoder import AttentionRule, attend, seen
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.model.transformers_path import TransformersModel
from tunesmith.train.batches import Corpus

# Tokens beyond the length of the answer in the file before the model counts as not stopping.
GRACE_TOKENS = 16
MAX_ANSWER_TOKENS = 64
# Sequences that are looked through for a short answer.
NUM_CANDIDATES = 1000


@dataclass(frozen=True)
class Smoke:
    stops: bool
    num_tokens: int
    """Generated, the stop token included."""


class GrowingCache:
    """The decoder's `Attention` for one short sequence that grows."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        T = q_BTHD.shape[1]
        if layer in self._kept:
            k, v = self._kept[layer]
            k_BTKD, v_BTKD = torch.cat((k, k_BTKD), 1), torch.cat((v, v_BTKD), 1)
        self._kept[layer] = (k_BTKD, v_BTKD)
        S = k_BTKD.shape[1]
        mask_BTS = seen(torch.arange(S - T, S, device=q_BTHD.device)[None], S, rule)
        return attend(q_BTHD, k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2), mask_BTS, rule)


def smoke(model: CausalModel, adapter: Adapter, corpus: Corpus, stop_ids: Set[int]) -> Smoke:
    """Answers greedily the prompt whose answer in the file is the shortest."""
    prompt, num_expected = shortest_answer(corpus)
    limit = min(num_expected + GRACE_TOKENS, max(MAX_ANSWER_TOKENS, num_expected))
    training, adapter.training = adapter.training, False
    try:
        answer = greedy(model, adapter, prompt, limit, stop_ids)
    finally:
        adapter.training = training
    return Smoke(answer[-1] in stop_ids, len(answer))


def shortest_answer(corpus: Corpus) -> tuple[list[int], int]:
    """The prompt before the shortest first answer found, and that answer's length."""
    best: tuple[int, int, int] | None = None
    for sequence in range(min(corpus.num_sequences, NUM_CANDIDATES)):
        _, weights = corpus.tokens(sequence)
        supervised = [*(weights > 0).tolist(), False]
        start = supervised.index(True)
        length = supervised.index(False, start) - start
        if best is None or length < best[0]:
            best = (length, sequence, start)
    assert best is not None, "a corpus has sequences"
    length, sequence, start = best
    return corpus.tokens(sequence)[0][:start].tolist(), length


@torch.no_grad()
def greedy(
    model: CausalModel, adapter: Adapter, prompt: list[int], limit: int, stop_ids: Set[int]
) -> list[int]:
    """At most `limit` of the most likely ids, through the first stop token."""
    answer: list[int] = []
    cache: Any = None if model.slow else GrowingCache()
    new = prompt
    while len(answer) < limit and len(prompt) + len(answer) < model.max_positions:
        ids_1T = torch.tensor([new], device=model.device)
        if isinstance(model, TransformersModel):
            hidden_1TE, cache = model.step(ids_1T, cache, adapter)
        else:
            num_seen = len(prompt) + len(answer)
            first = num_seen - len(new)
            hidden_1TE = model.hidden(
                ids_1T,
                positions_BT=torch.arange(first, num_seen, device=model.device)[None],
                attention=cache,
                lora=adapter,
            )
        new = [int(model.logits(hidden_1TE[0, -1]).argmax())]
        answer += new
        if answer[-1] in stop_ids:
            break
    return answer
