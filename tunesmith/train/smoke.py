"""The last check of a job: does the tuned model answer one training prompt, and stop?"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from tunesmith.model.greedy import greedy
from tunesmith.model.load import CausalModel
from tunesmith.train.batches import Corpus
from tunesmith.train.step import Trained

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


def smoke(model: CausalModel, lora: Trained, corpus: Corpus, stop_ids: Set[int]) -> Smoke:
    """Answers greedily the prompt whose answer in the file is the shortest."""
    prompt, num_expected = shortest_answer(corpus)
    limit = min(num_expected + GRACE_TOKENS, max(MAX_ANSWER_TOKENS, num_expected))
    [answer] = greedy(model, lora, [prompt], limit, stop_ids)
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
