"""The figures of the classifier's card, measured and written as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.moderation.classifier import NAME, Classifier
from tunesmith.moderation.verdict import CATEGORIES

CARD = Path(__file__).resolve().parents[1] / "docs" / "moderation.md"
BEGIN, END = "<!-- measured: make moderation -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Measured:
    num_texts: int
    num_positive: int
    auc: float
    """How often a text of the category scores higher than one that is not."""
    num_flagged: int
    num_right: int

    @property
    def precision(self) -> float:
        return self.num_right / self.num_flagged if self.num_flagged else 0.0


def measure(
    score_N: NDArray[np.float32], label_N: NDArray[np.float32], flagged_N: NDArray[np.bool_]
) -> Measured:
    rank_N = np.empty(len(score_N))
    rank_N[np.argsort(score_N, kind="stable")] = np.arange(1, len(score_N) + 1)
    positives = int(label_N.sum())
    negatives = len(label_N) - positives
    above = rank_N[label_N > 0].sum() - positives * (positives + 1) / 2
    auc = float(above / (positives * negatives)) if positives and negatives else float("nan")
    right = int((label_N[flagged_N] > 0).sum())
    return Measured(len(label_N), positives, auc, int(flagged_N.sum()), right)


def false_alarms(classifier: Classifier, texts: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """(flagged, all) for each kind of harmless texts."""
    return {
        kind: (sum(bool(each.flagged) for each in classifier.judge(found)), len(found))
        for kind, found in texts.items()
    }


def write(
    measured: dict[str, Measured],
    thresholds: NDArray[np.float32],
    alarms: dict[str, tuple[int, int]],
) -> None:
    """Replaces the measured part of the card."""
    before, _, rest = CARD.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    able = dict(zip(measured, np.isfinite(thresholds), strict=True))
    lines = [f"Of `{NAME}`:", "", *_categories(measured, able), "", *_alarms(alarms), ""]
    CARD.write_text(before + BEGIN + "\n".join(lines) + END + after, encoding="utf-8")


def _categories(measured: dict[str, Measured], able: dict[str, bool]) -> list[str]:
    lines = [
        "| category | texts | of the category | AUC | precision | recall |",
        "|---|---|---|---|---|---|",
    ]
    for name in CATEGORIES:
        found = measured.get(name)
        if found is None:
            lines.append(f"| {name} | no data | | | never flagged | 0 |")
        elif not able[name]:
            lines.append(
                f"| {name} | {found.num_texts} | {found.num_positive} | {found.auc:.2f} | "
                "never flagged: not told apart, or too few examples | 0 |"
            )
        else:
            recall = found.num_right / found.num_positive
            lines.append(
                f"| {name} | {found.num_texts} | {found.num_positive} | {found.auc:.2f} | "
                f"{found.precision:.2f} ({found.num_right} of {found.num_flagged}) | {recall:.2f} |"
            )
    return lines


def _alarms(alarms: dict[str, tuple[int, int]]) -> list[str]:
    lines = ["| harmless texts, of sources never trained on | texts | flagged |", "|---|---|---|"]
    for kind, (flagged, num) in alarms.items():
        lines.append(f"| {kind} | {num} | {flagged} ({100 * flagged / num:.1f} %) |")
    return lines
