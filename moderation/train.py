"""Fits the moderation classifier, measures it by folds, and writes weights and card.

One logistic regression for each category over hashed features, all fitted at once by L-BFGS with
an L2 penalty; a category's positives weigh as much as its negatives, up to a limit. Left out: text
normalisation beyond lower case, embeddings, hyper-parameter search (two values were tried).

What the card says of a fold is said by weights and thresholds that have seen the others alone.

    python -m moderation.train --data DATA
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from moderation import card
from moderation.examples import LEARNED, Labelled, held_back, training
from tunesmith.moderation.classifier import WEIGHTS, WINDOW_CHARS, Classifier, load
from tunesmith.moderation.features import NUM_BUCKETS, features

L2 = 0.1
MAX_POSITIVE_WEIGHT = 30.0
NUM_ITERATIONS = 40
NUM_FOLDS = 5
MIN_TEXTS_A_FEATURE = 2
#: of what is flagged among the labelled texts, at least so much shall be right
MIN_PRECISION = 0.7
#: and of the harmless texts no more may be flagged
MAX_FALSE_ALARMS = 0.001
#: with fewer examples to measure by, a category is never flagged
MIN_POSITIVES = 15
#: nor where the folds say that what it flags is more often wrong than right, or next to nothing
MIN_MEASURED_PRECISION = 0.5
MIN_FLAGGED = 5

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Matrix:
    """The features of all texts, by text and by feature; only those that several texts have."""

    by_text: torch.Tensor
    by_feature: torch.Tensor
    buckets: NDArray[np.int64]
    """The bucket of each column."""
    scale: Floats
    """What each column was multiplied with: how rare it is."""


def matrix(texts: list[str]) -> Matrix:
    found = [
        (text_F, bucket_F)
        for start in range(0, len(texts), 256)
        for text_F, bucket_F in _shifted(texts[start : start + 256], start)
    ]
    text_F = np.concatenate([each[0] for each in found])
    bucket_F = np.concatenate([each[1] for each in found])
    num_features = np.maximum(np.bincount(text_F, minlength=len(texts)), 1)
    cells, counts = np.unique(text_F * NUM_BUCKETS + bucket_F, return_counts=True)
    rows, buckets = cells // NUM_BUCKETS, cells % NUM_BUCKETS
    num_texts = np.bincount(buckets, minlength=NUM_BUCKETS)
    kept = np.flatnonzero(num_texts >= MIN_TEXTS_A_FEATURE)
    column_of = np.full(NUM_BUCKETS, -1)
    column_of[kept] = np.arange(len(kept))
    mask = column_of[buckets] >= 0
    rows, columns, counts = rows[mask], column_of[buckets[mask]], counts[mask]
    rarity = np.log((1 + len(texts)) / (1 + num_texts[kept]))
    scale = (rarity / rarity.mean()).astype(np.float32)
    values = (counts / np.sqrt(num_features[rows]) * scale[columns]).astype(np.float32)
    turned = np.argsort(columns, kind="stable")
    return Matrix(
        _sparse(rows, columns, values, (len(texts), len(kept))),
        _sparse(columns[turned], rows[turned], values[turned], (len(kept), len(texts))),
        kept,
        scale,
    )


def _shifted(texts: list[str], start: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return [(text_F + start, bucket_F) for text_F, bucket_F in features(texts)]


def _sparse(
    rows: NDArray[np.int64], columns: NDArray[np.int64], values: Floats, shape: tuple[int, int]
) -> torch.Tensor:
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return torch.sparse_csr_tensor(
        torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values), shape
    )


def fit(x: Matrix, label_NC: torch.Tensor, known_NC: torch.Tensor) -> tuple[Floats, Floats]:
    """Weights (columns, C) and biases (C) from the labels that are known."""
    positives_C = (label_NC * known_NC).sum(0)
    balance_C = ((known_NC.sum(0) - positives_C) / positives_C.clamp(min=1)).clamp(
        1, MAX_POSITIVE_WEIGHT
    )
    weight_NC = known_NC * torch.where(label_NC > 0, balance_C, torch.ones(()))
    table = torch.zeros(len(x.buckets), label_NC.shape[1], requires_grad=True)
    bias = torch.zeros(label_NC.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [table, bias], max_iter=NUM_ITERATIONS, history_size=6, line_search_fn="strong_wolfe"
    )
    losses = torch.nn.BCEWithLogitsLoss(weight_NC, reduction="sum")

    @torch.no_grad()
    def closure() -> torch.Tensor:
        logit_NC = x.by_text @ table + bias
        error_NC = (torch.sigmoid(logit_NC) - label_NC) * weight_NC
        table.grad = x.by_feature @ error_NC + L2 * table
        bias.grad = error_NC.sum(0)
        loss: torch.Tensor = losses(logit_NC, label_NC) + L2 / 2 * (table * table).sum()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return table.detach().numpy(), bias.detach().numpy()


def logits(x: Matrix, table: Floats, bias: Floats) -> Floats:
    found: Floats = (x.by_text @ torch.from_numpy(table)).numpy() + bias
    return found


def threshold(score_N: Floats, label_N: Floats, harmless_M: Floats) -> float:
    """The lowest logit that keeps the precision and the false alarms; infinite if none does."""
    if label_N.sum() < MIN_POSITIVES:
        return np.inf
    order = np.argsort(-score_N, kind="stable")
    precision = np.cumsum(label_N[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(precision >= MIN_PRECISION)
    if not len(good):
        return np.inf
    alarms = np.quantile(harmless_M, 1 - MAX_FALSE_ALARMS)
    return float(max(score_N[order[good[-1]]], alarms))


def crossed(
    x: Matrix, label_NC: torch.Tensor, known_NC: torch.Tensor, fold_N: NDArray[np.int64]
) -> Floats:
    """The logit of each text by weights that have not seen it."""
    scores = np.zeros(label_NC.shape, np.float32)
    for fold in range(NUM_FOLDS):
        seen_N = torch.from_numpy(fold_N != fold)
        found = logits(x, *fit(x, label_NC, known_NC * seen_N[:, None]))
        scores[fold_N == fold] = found[fold_N == fold]
        print(f"fold {fold + 1} of {NUM_FOLDS}", flush=True)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    torch.manual_seed(0)
    examples = training(data)
    x = matrix([each.text[:WINDOW_CHARS] for each in examples])
    label_NC, known_NC = labels(examples)
    fold_N = np.random.Generator(np.random.PCG64(3)).integers(0, NUM_FOLDS, len(examples))
    scores = crossed(x, label_NC, known_NC, fold_N)
    judged = known_NC.numpy() * np.array([[not each.is_harmless] for each in examples])
    harmless = np.array([each.is_harmless for each in examples])
    thresholds = np.full(len(LEARNED), np.inf, np.float32)
    measured = {}
    for column, name in enumerate(LEARNED):
        known = judged[:, column] > 0
        label, score = label_NC[:, column].numpy(), scores[:, column]
        flagged = np.zeros(len(examples), np.bool_)
        for fold in range(NUM_FOLDS):
            seen = fold_N != fold
            cut = threshold(score[seen & known], label[seen & known], score[seen & harmless])
            flagged |= ~seen & (score >= cut)
        found = measured[name] = card.measure(score[known], label[known], flagged[known])
        if found.num_flagged >= MIN_FLAGGED and found.precision >= MIN_MEASURED_PRECISION:
            thresholds[column] = threshold(score[known], label[known], score[harmless])
    write(x, *fit(x, label_NC, known_NC), thresholds)
    alarms = card.false_alarms(Classifier(load()), held_back(data))
    card.write(measured, thresholds, alarms)
    print(card.CARD.read_text(encoding="utf-8"))


def labels(examples: list[Labelled]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and whether each is known, both (texts, C)."""
    label_NC = torch.tensor(
        [[float(each.labels.get(name, 0)) for name in LEARNED] for each in examples]
    )
    known_NC = torch.tensor([[float(name in each.labels) for name in LEARNED] for each in examples])
    return label_NC, known_NC


def write(x: Matrix, table: Floats, bias: Floats, thresholds: Floats) -> None:
    full = np.zeros((NUM_BUCKETS, len(LEARNED)), np.float16)
    full[x.buckets] = table * x.scale[:, None]
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {"bias": bias, "table": full, "threshold": thresholds},
        WEIGHTS,
        {"categories": json.dumps(LEARNED)},
    )


if __name__ == "__main__":
    main()
