"""The next token of each row, from its scores.

A draw is a pure function of (scores, request, seed, choice, position): the random number comes
from a hash of the last three, not from a generator with state, so neither batch mates nor a
recomputed row change what is drawn. Each token takes one uniform number, read against the
cumulative distribution.

OpenAI's order: penalties and bias on the raw scores, then temperature, then top_p; a grammar's mask
comes before the temperature, top_k and min_p before top_p. Log probabilities are those of the raw
scores.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith.errors import EngineError
from tunesmith.serve.grammar import Constraint, closing_budget
from tunesmith.serve.protocol import MIN_LOGPROB, GenRequest, TokenLogprob


@dataclass
class Draws:
    """What one choice needs to draw its next token, and what it drew so far."""

    request: GenRequest
    seed: int
    index: int
    counts: dict[int, int] = field(default_factory=dict)
    """How often each token was generated."""
    num_drawn: int = 0
    constraint: Constraint | None = None

    @property
    def num_left(self) -> int:
        return self.request.max_new_tokens - self.num_drawn

    @property
    def num_closing(self) -> int:
        """The last tokens of an answer with a grammar, for bringing it to its end."""
        return closing_budget(self.request.max_new_tokens)

    def uniform(self) -> float:
        """In [0, 1), the same for the same seed, choice and position, on any machine."""
        key = struct.pack("<QQQ", self.seed & (2**64 - 1), self.index, self.num_drawn)
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return float((int.from_bytes(digest, "little") >> 11) * 2.0**-53)

    def record(self, token_id: int) -> None:
        self.counts[token_id] = self.counts.get(token_id, 0) + 1
        self.num_drawn += 1
        if self.constraint is not None:
            self.constraint.accept(token_id)


@dataclass(slots=True)
class Drawn:
    token_id: int
    logprob: TokenLogprob | None


def draw(scores_BV: Tensor, rows: Sequence[Draws]) -> list[Drawn | EngineError]:
    """The next token of each row, or why there is none: scores that are not finite, a grammar.

    `scores_BV` is fp32 and may be changed.
    """
    errors: dict[int, EngineError] = {}
    for row, finite in enumerate(scores_BV.sum(-1).isfinite().tolist()):
        if not finite:
            text = "The model's scores are not numbers; its weights are damaged."
            errors[row] = EngineError(text)
    logprobs = _raw_logsumexp(scores_BV, rows)
    raw_BV = scores_BV.clone() if logprobs else scores_BV
    for row, draws in enumerate(rows):
        if change := _change(draws):
            ids = torch.tensor(list(change), device=scores_BV.device)
            scores_BV[row, ids] += torch.tensor(list(change.values()), device=scores_BV.device)
        if draws.constraint is not None and row not in errors:
            hurry = draws.num_left <= draws.num_closing
            if error := draws.constraint.apply(scores_BV[row], hurry=hurry):
                errors[row] = error
    # NumPy finds the best of a row ten times as fast as torch does on a CPU.
    on_cpu = scores_BV.device.type == "cpu"
    tokens = (scores_BV.numpy() if on_cpu else scores_BV).argmax(-1).tolist()
    random = [
        row for row, draws in enumerate(rows) if row not in errors and not _greedy(draws.request)
    ]
    for narrowed in (False, True):
        group = [row for row in random if _narrows(rows[row].request) is narrowed]
        if group:
            wanted = [rows[row] for row in group]
            for row, token in zip(group, _sample(scores_BV[group], wanted), strict=True):
                tokens[row] = token
    entries = {
        row: _logprob(raw_BV[row], total, tokens[row], rows[row].request)
        for row, total in logprobs.items()
    }
    return [errors.get(row) or Drawn(token, entries.get(row)) for row, token in enumerate(tokens)]


def _narrows(request: GenRequest) -> bool:
    return request.top_p < 1 or request.top_k > 0 or request.min_p > 0


def _greedy(request: GenRequest) -> bool:
    # Colder than this the scores overflow, and only the best token is left anyway.
    return request.temperature < 1e-4 or request.top_p == 0


def _change(draws: Draws) -> dict[int, float]:
    """What is added to scores: - c[j] * frequency - (c[j] > 0) * presence + bias[j]."""
    request = draws.request
    if not request.presence_penalty and not request.frequency_penalty:
        return request.logit_bias
    change = dict(request.logit_bias)
    for token, count in draws.counts.items():
        penalty = count * request.frequency_penalty + request.presence_penalty
        change[token] = change.get(token, 0.0) - penalty
    return change


def _sample(scores_BV: Tensor, rows: Sequence[Draws]) -> list[int]:
    device = scores_BV.device
    heat = torch.tensor([row.request.temperature for row in rows], device=device)
    probs_BV = torch.softmax(scores_BV / heat[:, None], dim=-1).double()
    order_BV: Tensor | None = None
    if _narrows(rows[0].request):
        probs_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
        probs_BV = _narrow(probs_BV, [row.request for row in rows])
    summed_BV = probs_BV.cumsum(-1)
    total_B1 = summed_BV[:, -1:]
    uniform = torch.tensor([row.uniform() for row in rows], device=device, dtype=torch.double)
    # Below the total even after rounding, so that a token without probability is never found.
    target_B1 = torch.minimum(uniform[:, None] * total_B1, total_B1.nextafter(total_B1 * 0))
    place_B1 = torch.searchsorted(summed_BV, target_B1, right=True)
    chosen_B1 = place_B1 if order_BV is None else order_BV.gather(-1, place_B1)
    return [int(token) for token in chosen_B1[:, 0].tolist()]


def _narrow(probs_BV: Tensor, requests: Sequence[GenRequest]) -> Tensor:
    """Sorted probabilities with those outside top_k, min_p and top_p set to 0; never the first."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=probs_BV.device, dtype=torch.double)[:, None]

    num_ids = probs_BV.shape[-1]
    rank_V = torch.arange(num_ids, device=probs_BV.device)
    outside_BV = rank_V >= column([request.top_k or num_ids for request in requests])
    outside_BV |= probs_BV < column([request.min_p for request in requests]) * probs_BV[:, :1]
    kept_BV = probs_BV.masked_fill(outside_BV, 0.0)
    # top_p is a share of what the other two left.
    cut = [bool(request.top_k or request.min_p) for request in requests]
    total_B1 = kept_BV.sum(-1, keepdim=True)
    total_B1 = total_B1.where(torch.tensor(cut, device=probs_BV.device)[:, None], 1.0)
    mass_B1 = column([request.top_p for request in requests]) * total_B1
    # A token stays if those before it do not fill the mass yet: the first always does.
    return kept_BV.masked_fill(kept_BV.cumsum(-1) - kept_BV >= mass_B1, 0.0)


def _raw_logsumexp(scores_BV: Tensor, rows: Sequence[Draws]) -> dict[int, float]:
    """The normaliser of each row that reports log probabilities."""
    wanted = [row for row, draws in enumerate(rows) if draws.request.top_logprobs is not None]
    if not wanted:
        return {}
    return dict(zip(wanted, scores_BV[wanted].logsumexp(-1).tolist(), strict=True))


def _logprob(raw_V: Tensor, logsumexp: float, token: int, request: GenRequest) -> TokenLogprob:
    best = raw_V.topk(min(request.top_logprobs or 0, raw_V.shape[0]))
    return TokenLogprob(
        max(raw_V[token].item() - logsumexp, MIN_LOGPROB),
        [
            (int(other), max(score - logsumexp, MIN_LOGPROB))
            for other, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ],
    )
