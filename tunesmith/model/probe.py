"""Probes: what is checked once, when a base is registered, so that no job meets it later.

The checks are those silent failures of fine-tuning that a forward pass or two can show: weights
that are not numbers, padding that changes answers, decoding that differs from training, a stop
token that was never trained. The template's own checks are in `template_probe.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.bases import BaseInfo
from tunesmith.errors import BaseModelError
from tunesmith.ids import Clock, SystemClock
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.template_probe import Finding, TemplateReport, probe_template
from tunesmith.model.transformers_path import TransformersModel

# Up to this many parameters the probes run in fp32, where equality is sharp.
MAX_FP32_PARAMETERS = 1_000_000_000
# Allowed difference, as a share of the largest value.
FP32_TOLERANCE = 1e-4
NARROW_TOLERANCE = 5e-2
# A token row this much shorter than the median was hardly ever an output in training.
UNTRAINED_SHARE = 0.3


@dataclass(frozen=True)
class BaseReport:
    """What the check found; `info` is None where an error left nothing to describe."""

    info: BaseInfo | None
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether the base may be registered."""
        return not any(finding.severity == "error" for finding in self.findings)


def check_base(directory: Path, name: str, clock: Clock | None = None) -> BaseReport:
    """Describes, loads and tries the model in `directory`. Never raises for a bad model."""
    template = probe_template(directory, name)
    if template.info is None:
        return BaseReport(None, template.findings)
    info = replace(template.info, created_at=int((clock or SystemClock()).now()))
    dtype = torch.float32 if info.num_parameters <= MAX_FP32_PARAMETERS else None
    try:
        model = load_model(info.path, dtype=dtype)
    except BaseModelError as error:
        return BaseReport(info, [*template.findings, Finding("load", "error", str(error))])
    with torch.no_grad():
        findings = _probe(model, template)
    return BaseReport(info, [*template.findings, *findings])


def _probe(model: CausalModel, template: TemplateReport) -> list[Finding]:
    findings = []
    if model.slow:
        findings.append(
            Finding(
                "slow",
                "info",
                "There is no decoder for this family here: it runs through transformers, which "
                "is slower and decodes one request at a time.",
            )
        )
    broken = _not_finite(model)
    if broken is not None:
        return [*findings, broken]
    findings += _rows_stay_apart(model, template.samples)
    return findings + _stop_tokens(model, template.end_ids)


def _not_finite(model: CausalModel) -> Finding | None:
    for name, weight in model.weights.items():
        # A sum keeps every NaN and infinity and needs no memory.
        if not bool(torch.isfinite(weight.sum(dtype=torch.float32))):
            return Finding(
                "finite",
                "error",
                f"{name} holds values that are not finite.",
                "Download the weights again, or register another version of the model.",
            )
    return None


def _rows_stay_apart(model: CausalModel, samples: list[list[int]]) -> list[Finding]:
    """A row alone, padded in a batch, and decoded step by step must give the same states."""
    short, long = sorted(samples, key=len)
    alone_BT = torch.tensor([short], device=model.device)
    alone = model.hidden(alone_BT)
    padded_BT = torch.tensor([short + short[:1] * (len(long) - len(short)), long])
    padded = model.hidden(padded_BT.to(model.device))[:1, : len(short)]
    findings = []
    if not bool(torch.isfinite(model.logits(alone)).all()):
        findings.append(
            Finding("finite", "error", "The model's answer to a short prompt is not finite.")
        )
    elif not _close(padded, alone):
        findings.append(
            Finding(
                "padding",
                "error",
                "Padding a row on the right changes its result, so batches would train wrongly.",
                "This kind of model cannot be used.",
            )
        )
    if isinstance(model, TransformersModel):
        first, past = model.step(alone_BT[:, :-1])
        last, _ = model.step(alone_BT[:, -1:], past)
        if not _close(torch.cat((first, last), 1), alone):
            findings.append(
                Finding(
                    "decoding",
                    "error",
                    "Decoding step by step differs from reading the whole text.",
                    "This kind of model cannot be served; try another version of transformers.",
                )
            )
    return findings


def _stop_tokens(model: CausalModel, end_ids: list[int]) -> list[Finding]:
    """A stop token whose row looks untrained would have to be learned from the user's data."""
    return [
        Finding(
            "stop_token",
            "warning",
            f"The token that ends a turn (id {number}) looks untrained, as in models never tuned "
            "for chat: a small fine-tune may learn the task but not where to stop.",
            "Use the instruct variant of the model, or a template that ends turns with a token "
            "the model knows.",
        )
        for number in end_ids
        if _looks_untrained(model.head, number)
    ]


def _looks_untrained(head_VE: Tensor, number: int) -> bool:
    """Nearly zero, or the same as another row: what reserved and appended tokens look like."""
    norms_V = head_VE.norm(dim=1, dtype=torch.float32)
    if bool(norms_V[number] < UNTRAINED_SHARE * norms_V.median()):
        return True
    alike = head_VE[norms_V == norms_V[number]]
    return int((alike == head_VE[number]).all(dim=1).sum()) > 1


def _close(found: Tensor, expected: Tensor) -> bool:
    tolerance = FP32_TOLERANCE if expected.dtype == torch.float32 else NARROW_TOLERANCE
    limit = tolerance * float(expected.abs().max())
    return bool((found - expected).abs().max() <= limit)
