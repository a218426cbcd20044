"""What a step lowers. The step is the same for every method; only these few functions differ.

Supervised: the mean of the tokens' losses, weighted. Preferences (DPO, Rafailov et al. 2023): the
mean of -log sigmoid(margin), margin = beta * ((logp_w - ref_w) - (logp_l - ref_l)), where w is the
preferred answer, l the other one, and ref what the model that the job started from makes of them.

Shape suffixes: S sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from tunesmith.train.batches import Corpus, MicroBatch


@dataclass(frozen=True)
class Means:
    """The figures of a pass over some rows."""

    loss: float
    """What the objective lowers."""
    accuracy: float
    """The share of the answers' tokens that the model finds the most likely, 0 to 1; of pairs the
    preferred answers."""
    gradient_norm: float = 0.0
    """Before clipping."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Of preferences: chosen, rejected, margin, accuracy."""
    row_losses: Sequence[float] = ()
    """Of each row, in their order."""

    def named(self, phase: str) -> dict[str, float]:
        """In the words of the published metrics; `phase` is train, valid or full_valid."""
        return {
            f"{phase}_loss": self.loss,
            f"{phase}_mean_token_accuracy": self.accuracy,
            **{f"{phase}_reward_{name}": value for name, value in self.rewards.items()},
        }


@dataclass(frozen=True)
class Sums:
    """Over the supervised tokens of each sequence, by its number in the corpus."""

    loss: Mapping[int, float]
    correct: Mapping[int, float]


@dataclass(frozen=True)
class Supervised:
    corpus: Corpus
    looks_at_losses: ClassVar[bool] = False
    """Whether the coefficients depend on them."""

    def units(self, rows: Sequence[int]) -> list[list[int]]:
        """Their sequences; those of a unit must go through the model together."""
        return [[sequence] for sequence in self.corpus.sequences(rows)]

    def divisor(self, rows: Sequence[int]) -> float:
        """What the sum over the rows is divided by."""
        return self.corpus.total_weight(rows)

    def coefficients(self, batch: MicroBatch, loss_S: Tensor) -> Tensor:
        """(S,): the derivative of the rows' summed loss by the loss of each sequence."""
        return torch.ones_like(loss_S)

    def means(self, rows: Sequence[int], sums: Sums) -> Means:
        by_row = [sum(sums.loss[each] for each in self.corpus.sequences([row])) for row in rows]
        return Means(
            sum(by_row) / self.divisor(rows),
            sum(sums.correct[each] for each in self.corpus.sequences(rows))
            / self.corpus.num_supervised(rows),
            row_losses=[
                loss / self.corpus.weight(row) for loss, row in zip(by_row, rows, strict=True)
            ],
        )


@dataclass(frozen=True)
class Preference:
    """The same for rows of two sequences, the preferred answer first."""

    corpus: Corpus
    reference_S: Tensor
    """Summed log-probability of each sequence's answer before the job, float64, on the CPU."""
    beta: float
    looks_at_losses: ClassVar[bool] = True

    def units(self, rows: Sequence[int]) -> list[list[int]]:
        return [self.corpus.sequences([row]) for row in rows]

    def divisor(self, rows: Sequence[int]) -> float:
        return float(len(rows))

    def coefficients(self, batch: MicroBatch, loss_S: Tensor) -> Tensor:
        places = {sequence: place for place, sequence in enumerate(batch.sequences)}
        partner = [places[sequence ^ 1] for sequence in batch.sequences]
        # The loss is minus the log-probability; the preferred one's is to fall.
        sign = [-1.0 if sequence % 2 else 1.0 for sequence in batch.sequences]
        sign_S = torch.tensor(sign, dtype=torch.float64).to(loss_S.device)
        gain_S = -loss_S - self.reference_S[list(batch.sequences)].to(loss_S.device)
        margin_S = self.beta * sign_S * (gain_S - gain_S[partner])
        return sign_S * self.beta * torch.sigmoid(-margin_S)

    def means(self, rows: Sequence[int], sums: Sums) -> Means:
        sequences = self.corpus.sequences(rows)
        logp = torch.tensor([-sums.loss[each] for each in sequences], dtype=torch.float64)
        rewards = self.beta * (logp - self.reference_S[sequences])
        chosen, rejected = rewards[0::2], rewards[1::2]
        margin = chosen - rejected
        losses = torch.nn.functional.softplus(-margin)
        preferred = sequences[0::2]
        num_tokens = sum(self.corpus.num_answer_tokens(each) for each in preferred)
        return Means(
            float(losses.mean()),
            sum(sums.correct[each] for each in preferred) / num_tokens,
            rewards={
                "chosen": float(chosen.mean()),
                "rejected": float(rejected.mean()),
                "margin": float(margin.mean()),
                "accuracy": float((margin > 0).double().mean()),
            },
            row_losses=losses.tolist(),
        )


# What is lowered on the rows of one corpus.
Objective = Supervised | Preference


def untaught(corpus: Corpus, beta: float | None) -> Objective:
    """The objective before there is a reference: for what goes through a model together."""
    return Supervised(corpus) if beta is None else Preference(corpus, torch.empty(0), beta)


def longest_unit(objective: Objective, rows: Iterable[int]) -> int:
    """Positions that at least have to go through the model at once."""
    return max(map(objective.corpus.size, objective.units(list(rows))))
